/* How the wait of lock_connect_and_acquire is ended, in each of its phases: by what report returns,
 * and by signal handlers; and what report may do. Argument: a directory for sockets, and
 * unless the library is built without TLS a certificate ca.pem in it. */
#include "patient.h"

static const char *directory;
static char absent[ADDRESS_BYTES];
static char url[ADDRESS_BYTES];
static lock_session *holder;

static void do_nothing(int signal) {
    (void)signal;
}

/* Nothing of a call that has failed is left on the server. */
static void expect_nothing_left(void) {
    AWAIT(waiters(holder, "lock") == 0);
}

static void expect_ended(patient *patient, lock_status status) {
    EXPECT(status, finish_patient(patient));
    expect_nothing_left();
}

static void report_ends_the_wait_at_each_event(void) {
    for (int event = 0; event < EVENTS; event++) {
        patient patient = patient_for(event == LOCK_EVENT_NO_SERVER ? absent : url);
        patient.stop_at = event;
        start_patient(&patient);
        expect_ended(&patient, LOCK_CANCELLED);
        CHECK(patient.events[event] == 1);
    }
}

/* What another thread does: it sets a variable. Within about a second, report is called. */
static void another_thread_ends_the_wait(void) {
    patient waiting = patient_for(url), pausing = patient_for(absent);
    start_patient(&waiting);
    start_patient(&pausing);
    AWAIT(waiting.events[LOCK_EVENT_WAITING] == 1 && pausing.events[LOCK_EVENT_NO_SERVER] >= 1);
    waiting.stop = pausing.stop = true;
    expect_ended(&waiting, LOCK_CANCELLED);
    expect_ended(&pausing, LOCK_CANCELLED);
    CHECK(strcmp(waiting.error, lock_strerror(LOCK_CANCELLED)) == 0);
    for (int kind = 0; kind < mutes(directory); kind++) {
        mute mute = make_mute(kind, directory);
        patient connecting = patient_for(mute.url);
        connecting.stop = true;
        start_patient(&connecting);
        EXPECT(LOCK_CANCELLED, finish_patient(&connecting));
        CHECK(connecting.events[LOCK_EVENT_STILL_WAITING] == 1);
        end_mute(&mute);
    }
}

/* Runs a signal handler in the thread of the call until that has ended the call. */
static void interrupt(patient *patient) {
    AWAIT(patient->is_done || (pthread_kill(patient->thread, SIGUSR1), false));
    EXPECT(LOCK_INTERRUPTED, finish_patient(patient));
    CHECK(strstr(patient->error, "kept") == NULL);
    expect_nothing_left();
}

static void without_report_a_signal_ends_the_wait(void) {
    patient waiting = patient_for(url), pausing = patient_for(absent);
    waiting.is_silent = pausing.is_silent = true;
    start_patient(&waiting);
    AWAIT(waiters(holder, "lock") == 1);
    interrupt(&waiting);
    start_patient(&pausing);
    interrupt(&pausing);
    for (int kind = 0; kind < mutes(directory); kind++) {
        mute mute = make_mute(kind, directory);
        patient connecting = patient_for(mute.url);
        connecting.is_silent = true;
        start_patient(&connecting);
        interrupt(&connecting);
        end_mute(&mute);
    }
}

/* Each signal is reported soon, not only with the next second. */
static void expect_reported(patient *patient) {
    enum { SIGNALS = 40 };
    time_t start = seconds();
    for (int i = 0; i < SIGNALS; i++) {
        int before = patient->events[LOCK_EVENT_STILL_WAITING];
        AWAIT(patient->events[LOCK_EVENT_STILL_WAITING] > before ||
              (pthread_kill(patient->thread, SIGUSR1), false));
    }
    CHECK(seconds() - start < SIGNALS - 10 && "the seconds alone would have taken longer");
    CHECK(!patient->is_done);
    patient->stop = true;
    AWAIT(patient->is_done || (pthread_kill(patient->thread, SIGUSR1), false));
    EXPECT(LOCK_CANCELLED, finish_patient(patient));
}

static void report_is_told_of_signals_in_every_phase(void) {
    patient waiting = patient_for(url), pausing = patient_for(absent);
    start_patient(&waiting);
    AWAIT(waiting.events[LOCK_EVENT_WAITING] == 1);
    expect_reported(&waiting);
    start_patient(&pausing);
    AWAIT(pausing.events[LOCK_EVENT_NO_SERVER] >= 1);
    expect_reported(&pausing);
    for (int kind = 0; kind < mutes(directory); kind++) {
        mute mute = make_mute(kind, directory);
        patient connecting = patient_for(mute.url);
        start_patient(&connecting);
        expect_reported(&connecting);
        CHECK(connecting.events[LOCK_EVENT_NO_SERVER] == 0 && "the attempt goes on");
        end_mute(&mute);
    }
}

static void a_signal_does_not_cost_the_place(void) {
    patient first = patient_for(url), second = patient_for(url);
    start_patient(&first);
    AWAIT(waiters(holder, "lock") == 1);
    start_patient(&second);
    AWAIT(waiters(holder, "lock") == 2);
    for (int i = 0; i < 5; i++) {
        int before = first.events[LOCK_EVENT_STILL_WAITING];
        AWAIT(first.events[LOCK_EVENT_STILL_WAITING] > before ||
              (pthread_kill(first.thread, SIGUSR1), false));
    }
    CHECK(first.events[LOCK_EVENT_WAITING] == 1 && waiters(holder, "lock") == 2);
    EXPECT(LOCK_OK, lock_release(holder, "lock"));
    EXPECT(LOCK_OK, finish_patient(&first));
    CHECK(!second.is_done);
    lock_close(first.session);
    EXPECT(LOCK_OK, finish_patient(&second));
    /* From now on signal handlers end its calls as they do for every session. */
    EXPECT(LOCK_PENDING, lock_enqueue(holder, "lock", LOCK_EXCLUSIVE));
    lock_close(second.session);
    EXPECT(LOCK_OK, lock_wait(holder, "lock", -1, NULL));
}

/* The library may be called from report. */
static int use_the_library(uint32_t event, const char *reason, void *context) {
    lock_session *session = lock_open(NULL, "inside");
    (void)event, (void)reason;
    EXPECT(LOCK_OK, lock_acquire(session, "inside", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_INVALID, lock_acquire(NULL, "inside", LOCK_EXCLUSIVE, 0, NULL));
    lock_close(session);
    return ++*(int *)context >= 2;
}

static void report_may_call_the_library(void) {
    int calls = 0;
    const char *names[] = {"lock"};
    lock_session *session = NULL;
    EXPECT(LOCK_CANCELLED,
           lock_connect_and_acquire(url, NULL, names, NULL, 1, -1, use_the_library, &calls, NULL, &session));
    CHECK(calls == 2 && session == NULL);
    expect_nothing_left();
}

int main(int argc, char **argv) {
    char listen_at[ADDRESS_BYTES], address[ADDRESS_BYTES];
    CHECK(argc == 2);
    directory = argv[1];
    snprintf(absent, sizeof absent, "unix:%s/absent", directory);
    snprintf(url, sizeof url, "unix:%s/server", directory);
    snprintf(listen_at, sizeof listen_at, "message+unix:%s/server", directory);
    lock_server *server = serve(NULL, listen_at, address);
    holder = lock_connect(url, "holder", 10000);
    EXPECT(LOCK_OK, lock_acquire(holder, "lock", LOCK_EXCLUSIVE, 0, NULL));
    struct sigaction action = {.sa_handler = do_nothing};
    for (int flags = 0, round = 0; round < 2; round++, flags = SA_RESTART) {
        action.sa_flags = flags;
        CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
        without_report_a_signal_ends_the_wait();
        report_is_told_of_signals_in_every_phase();
        a_signal_does_not_cost_the_place();
    }
    report_ends_the_wait_at_each_event();
    another_thread_ends_the_wait();
    report_may_call_the_library();
    lock_close(holder);
    lock_server_stop(server);
    return 0;
}
