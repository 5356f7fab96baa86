/* What every driver in C needs: reading commands, decoding names, writing outcomes, and the commands
 * that are the same for every client: in-background, fork, fork-sleep. The driver has the abilities,
 * and a function that carries out all other commands. ../../README.md describes them. */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* A set may have 1024 names, and a trial may ask for more than that. */
enum { OUTCOME_BYTES = 1024, WORDS_MAX = 2048 };

typedef struct command {
    int count;
    char *words[WORDS_MAX];
} command;

/* Carries out a command and writes its outcome, OUTCOME_BYTES at most. */
typedef void carry_out_fn(const command *command, char *outcome);

static inline int is_command(const command *command, const char *name) {
    return strcmp(command->words[0], name) == 0;
}

/* The TEXT of an outcome may have any length and line breaks. */
__attribute__((format(printf, 2, 3)))
static inline void say(char *outcome, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(outcome, OUTCOME_BYTES, format, arguments);
    va_end(arguments);
    for (char *byte = outcome; *byte != '\0'; byte++) {
        if (*byte == '\n' || *byte == '\r') {
            *byte = ' ';
        }
    }
}

/* A line goes out in one write, so that those of two threads never mix. */
static inline void write_line(const char *prefix, const char *outcome) {
    char line[OUTCOME_BYTES + 32];
    int length = snprintf(line, sizeof line, "%s%s\n", prefix, outcome);
    if (write(STDOUT_FILENO, line, (size_t)length) != length) {
        _exit(1);
    }
}

/* Decodes a name in its place and returns it; NULL if it has a zero byte, which ends a name in C. */
static inline const char *name_of(char *word) {
    char *end = word;
    for (char *from = strcmp(word, "\"\"") == 0 ? word + 2 : word; *from != '\0'; end++) {
        char digits[3] = {0};
        if (*from == '%') {
            memcpy(digits, from + 1, 2);
            *end = (char)strtol(digits, NULL, 16);
            from += 3;
        } else {
            *end = *from++;
        }
    }
    *end = '\0';
    return memchr(word, '\0', (size_t)(end - word)) == NULL ? word : NULL;
}

/* A time in milliseconds; -1 for `forever`. */
static inline int64_t time_of(const char *word) {
    return strcmp(word, "forever") == 0 ? -1 : (int64_t)strtoll(word, NULL, 10);
}

static inline void split(char *line, command *command) {
    char *rest = NULL;
    command->count = 0;
    for (char *word = strtok_r(line, " \n", &rest); word != NULL; word = strtok_r(NULL, " \n", &rest)) {
        if (command->count == WORDS_MAX) {
            fputs("a command has too many words\n", stderr);
            _exit(1);
        }
        command->words[command->count++] = word;
    }
}

typedef struct background {
    carry_out_fn *carry_out;
    char line[];
} background;

static inline void *run_background(void *argument) {
    background *call = argument;
    char outcome[OUTCOME_BYTES] = "";
    command *command = malloc(sizeof *command);
    split(call->line, command);
    call->carry_out(command, outcome);
    write_line("background ", outcome);
    free(command);
    free(call);
    return NULL;
}

static inline void start_background(const char *line, carry_out_fn *carry_out) {
    background *call = malloc(sizeof *call + strlen(line) + 1);
    pthread_t thread;
    call->carry_out = carry_out;
    strcpy(call->line, line);
    /* The call may end at once, and its line must come after this one. */
    write_line("", "ok");
    if (pthread_create(&thread, NULL, run_background, call) != 0 || pthread_detach(thread) != 0) {
        _exit(1);
    }
}

/* Carries out a line in a forked child. */
static inline void answer(char *line, carry_out_fn *carry_out);
static inline void answer_in_child(char *line, carry_out_fn *carry_out) {
    pid_t child = fork();
    if (child == 0) {
        answer(line, carry_out);
        exit(0);
    }
    /* The next command finds that the child has ended. */
    if (child < 0 || waitpid(child, NULL, 0) < 0) {
        _exit(1);
    }
}

/* Forks a child that inherits the session and uses nothing of it. */
static inline void fork_sleep(int64_t milliseconds, char *outcome) {
    pid_t child = fork();
    if (child == 0) {
        usleep((useconds_t)milliseconds * 1000);
        exit(0);
    }
    say(outcome, "ok %d", (int)child);
}

/* Carries out a line and writes the outcome. */
static inline void answer(char *line, carry_out_fn *carry_out) {
    static command command;
    char outcome[OUTCOME_BYTES] = "";
    if (strncmp(line, "in-background ", 14) == 0) {
        start_background(line + 14, carry_out);
    } else if (strncmp(line, "fork ", 5) == 0) {
        answer_in_child(line + 5, carry_out);
    } else {
        split(line, &command);
        if (command.count == 2 && is_command(&command, "fork-sleep")) {
            fork_sleep(time_of(command.words[1]), outcome);
        } else if (command.count > 0) {
            carry_out(&command, outcome);
        }
        write_line("", outcome[0] == '\0' ? "error this command is not known" : outcome);
    }
}

/* Says what the client can do, then carries out commands until the standard input ends. */
static inline int converse(const char *abilities, carry_out_fn *carry_out) {
    char *line = NULL;
    size_t size = 0;
    write_line("conformance 1\n", abilities);
    write_line("", "ready");
    while (getline(&line, &size, stdin) > 0) {
        answer(line, carry_out);
        /* Children of fork-sleep that have ended. */
        while (waitpid(-1, NULL, WNOHANG) > 0) {
            continue;
        }
    }
    free(line);
    return 0;
}

#endif
