#define FFI_SCOPE "lockd"
#define FFI_LIB "liblockd.so.1"


typedef enum lock_status {
  LOCK_OK = 0,
  LOCK_PENDING = 1,
  LOCK_TIMEOUT = 2,
  LOCK_NOT_HELD = 3,
  LOCK_ALREADY_HELD = 4,
  LOCK_DEADLOCK = 5,
  LOCK_CANCELLED = 6,
  LOCK_INTERRUPTED = 7,
  LOCK_INVALID = 8,
  LOCK_REFUSED = 9,
  LOCK_LOST = 10,
  LOCK_FORKED = 11,
  LOCK_IO = 12,
  LOCK_INTERNAL = 13,
  LOCK_DOUBT = 14,
} lock_status;

typedef enum lock_event {
  LOCK_EVENT_NO_SERVER = 0,
  LOCK_EVENT_WAITING = 1,
  LOCK_EVENT_STILL_WAITING = 2,
} lock_event;

typedef enum lock_mode {
  LOCK_EXCLUSIVE = 0,
  LOCK_SHARED = 1,
} lock_mode;

typedef struct lock_broker lock_broker;

typedef struct lock_server lock_server;

typedef struct lock_session lock_session;

typedef int (*lock_report)(uint32_t event, const char *reason, void *context);

typedef struct lock_info {
  uint64_t token;
  uint64_t holders;
  uint64_t waiters;
  uint32_t mode;
  bool held;
  bool waiting;
  bool orphaned;
} lock_info;

typedef struct lock_slots {
  uint64_t holders;
  uint64_t waiters;
  uint32_t limit;
  uint32_t free;
} lock_slots;

uint32_t lock_at_most(uint32_t n);

const char *lock_strerror(int status);

const char *lock_last_error(void);

const char *lock_version(void);

uint32_t lock_abi_version(void);

struct lock_broker *lock_broker_new(void);

void lock_broker_free(struct lock_broker *broker);

struct lock_session *lock_open(struct lock_broker *broker, const char *owner);

struct lock_session *lock_connect(const char *url, const char *owner, int64_t timeout_ms);

void lock_close(struct lock_session *session);

enum lock_status lock_end(struct lock_session *session);

enum lock_status lock_abandon(struct lock_session *session);

size_t lock_close_all(void);

enum lock_status lock_check(struct lock_session *session);

enum lock_status lock_wait_certain(struct lock_session *session, int64_t timeout_ms);

int lock_resumable(struct lock_session *session);

int lock_lost_fd(struct lock_session *session);

enum lock_status lock_cancel(struct lock_session *session);

enum lock_status lock_connect_and_acquire(const char *url,
                                          const char *owner,
                                          const char *const *names,
                                          const uint32_t *modes,
                                          size_t n,
                                          int64_t timeout_ms,
                                          lock_report report,
                                          void *context,
                                          uint64_t *token,
                                          struct lock_session **session);

enum lock_status lock_acquire(struct lock_session *session,
                              const char *name,
                              uint32_t mode,
                              int64_t timeout_ms,
                              uint64_t *token);

enum lock_status lock_acquire_all(struct lock_session *session,
                                  const char *const *names,
                                  const uint32_t *modes,
                                  size_t n,
                                  int64_t timeout_ms,
                                  uint64_t *token);

enum lock_status lock_convert(struct lock_session *session,
                              const char *name,
                              uint32_t mode,
                              int64_t timeout_ms);

enum lock_status lock_enqueue(struct lock_session *session, const char *name, uint32_t mode);

enum lock_status lock_enqueue_convert(struct lock_session *session,
                                      const char *name,
                                      uint32_t mode);

enum lock_status lock_wait(struct lock_session *session,
                           const char *name,
                           int64_t timeout_ms,
                           uint64_t *token);

enum lock_status lock_release(struct lock_session *session, const char *name);

enum lock_status lock_release_all(struct lock_session *session, const char *const *names, size_t n);

enum lock_status lock_token(struct lock_session *session, const char *name, uint64_t *token);

enum lock_status lock_held_mode(struct lock_session *session, const char *name, uint32_t *mode);

enum lock_status lock_inspect(struct lock_session *session,
                              const char *name,
                              struct lock_info *out);

enum lock_status lock_inspect_slots(struct lock_session *session,
                                    const char *name,
                                    struct lock_slots *out);

enum lock_status lock_list(struct lock_session *session,
                           const char *prefix,
                           const char *after,
                           uint64_t limit,
                           char **json);

void lock_list_free(char *json);

enum lock_status lock_serve(struct lock_broker *broker,
                            const char *listen,
                            const char *allow,
                            struct lock_server **out);

enum lock_status lock_serve_with(struct lock_broker *broker,
                                 const char *const *names,
                                 const char *const *values,
                                 size_t n,
                                 struct lock_server **out);

enum lock_status lock_server_address(const struct lock_server *server,
                                     size_t index,
                                     char *buf,
                                     size_t len);

void lock_server_stop(struct lock_server *server);
