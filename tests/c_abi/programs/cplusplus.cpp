// The header works in C++ too, and handles fit the C++ types that own resources. Arguments:
// [server].
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "lockd.h"

struct Close {
    void operator()(lock_session *session) const { lock_close(session); }
};
using Session = std::unique_ptr<lock_session, Close>;

static void check(lock_status status) {
    if (status != LOCK_OK) {
        throw std::runtime_error(lock_last_error());
    }
}

// Holds a lock during its lifetime.
class Guard {
  public:
    Guard(const Session &session, std::string name) : session_(session.get()), name_(std::move(name)) {
        check(lock_acquire(session_, name_.c_str(), LOCK_EXCLUSIVE, -1, &token_));
    }
    ~Guard() { lock_release(session_, name_.c_str()); }
    Guard(const Guard &) = delete;
    Guard &operator=(const Guard &) = delete;
    std::uint64_t token() const { return token_; }

  private:
    lock_session *session_;
    std::string name_;
    std::uint64_t token_ = 0;
};

static Session open(int argc, char **argv) {
    Session session(argc > 1 ? lock_connect(argv[1], "c++", 10000) : lock_open(nullptr, "c++"));
    if (!session) {
        throw std::runtime_error(lock_last_error());
    }
    return session;
}

static void run(int argc, char **argv) {
    const Session session = open(argc, argv);
    std::uint64_t first, second = 0;
    std::thread other;
    {
        Guard guard(session, "c++");
        first = guard.token();
        other = std::thread([&] {
            const Session waiting = open(argc, argv);
            second = Guard(waiting, "c++").token();
        });
        lock_info info{};
        check(lock_inspect(session.get(), "c++", &info));
        if (!info.held || info.mode != LOCK_EXCLUSIVE || info.token != first) {
            throw std::runtime_error("the lock is not as it was acquired");
        }
    }
    other.join();
    if (second <= first) {
        throw std::runtime_error("the second token is not the higher one");
    }
}

int main(int argc, char **argv) {
    try {
        run(argc, argv);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "%s\n", error.what());
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
