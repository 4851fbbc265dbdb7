// A pool that runs one function on every core at once, and a barrier between its phases.
//
// All threads wait for the slowest at every barrier, so that a thread whose core another program takes half of the
// time costs more than it brings: two threads on two cores beside one such program make half the tokens of one thread
// (docs/log.md). So the pool counts the processor time that its threads get, and lets those that get too little sleep.
//
// A decode step of a small model is two hundred phases of a few microseconds each: threads spin between phases
// and go to sleep (a futex, through std::atomic::wait) only when no step has come for a while.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <sched.h>
#include <thread>
#include <time.h>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fireside {

inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

inline double seconds(clockid_t clock) {
    timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// How many threads are worth running, judged by the processor time that those which ran were given.
class Headcount {
   public:
    explicit Headcount(int most) : most_(most), count_(most) {}

    int count() const { return count_; }

    // After every round: how long it took, and what its threads had of the processor in all.
    void record(double now, double wall, double used) {
        wall_ += wall;
        used_ += used;
        if (wall_ < WINDOW) return;
        const bool enough = (double)count_ - used_ / wall_ < TOLERATED;
        wall_ = used_ = 0;
        if (!enough) {
            if (trying_) pause_ = std::min(2 * pause_, LONGEST_PAUSE);
            trying_ = false;
            if (count_ > 1) --count_;
            resume_ = now + pause_;
        } else if (now >= resume_) {
            trying_ = count_ < most_;
            if (trying_) ++count_;
            else pause_ = SHORTEST_PAUSE;
        }
    }

   private:
    static constexpr double WINDOW = 0.03;     // seconds of work that are judged at once
    static constexpr double TOLERATED = 0.35;  // of one processor: more is another program, not the waking of threads
    static constexpr double SHORTEST_PAUSE = 0.25, LONGEST_PAUSE = 8;  // seconds before one more thread is tried: each
                                                                     // try that fails makes the next one later

    const int most_;
    int count_;
    bool trying_ = false;  // whether the last change was one thread more
    double wall_ = 0, used_ = 0, pause_ = SHORTEST_PAUSE, resume_ = 0;
};

class Barrier {
   public:
    void set_count(int count) { count_ = count; }  // while nobody waits

    void wait() {
        if (count_ == 1) return;
        const uint32_t generation = generation_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == count_) {
            arrived_.store(0, std::memory_order_relaxed);
            generation_.store(generation + 1, std::memory_order_release);
            return;
        }
        for (int spins = 0; generation_.load(std::memory_order_acquire) == generation; ++spins) {
            relax();
            if (spins > 2000) sched_yield();  // the other thread lost its core: lend it this one
        }
    }

   private:
    int count_ = 1;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> generation_{0};
};

class Pool {
   public:
    explicit Pool(int threads) : size(threads), headcount_(threads) {
        try {
            for (int index = 1; index < threads; ++index) workers_.emplace_back([this, index] { serve(index); });
        } catch (...) {
            stop();  // those that did start: a thread that is neither joined nor detached ends the process
            throw;
        }
    }
    ~Pool() { stop(); }
    Pool(const Pool&) = delete;

    // Calls task(context, thread index) on the caller's thread and on others, and waits for all.
    void run(void (*task)(void*, int), void* context) {
        const double start = seconds(CLOCK_MONOTONIC), start_used = seconds(CLOCK_THREAD_CPUTIME_ID);
        const int count = std::min(headcount_.count(), (int)COUNT_MASK);
        task_ = task;
        context_ = context;
        barrier.set_count(count);
        unfinished_.store(count - 1, std::memory_order_relaxed);
        wake(count);
        task(context, 0);
        for (int spins = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spins) {
            relax();
            if (spins > 2000) sched_yield();
        }
        double used = seconds(CLOCK_THREAD_CPUTIME_ID) - start_used;
        for (int index = 1; index < count; ++index) used += used_[index];
        const double end = seconds(CLOCK_MONOTONIC);
        headcount_.record(end, end - start, used);
    }

    const int size;
    Barrier barrier;

   private:
    // One word says both that there is a new round and who takes part: who does not may be late to look.
    static constexpr uint32_t COUNT_MASK = 2047, NEXT_ROUND = 2048;

    void wake(int count) {
        const uint32_t last = round_.load(std::memory_order_relaxed);
        round_.store(((last & ~COUNT_MASK) + NEXT_ROUND) | (uint32_t)count, std::memory_order_release);
        round_.notify_all();
        if (count > (int)(last & COUNT_MASK)) {
            growth_.fetch_add(1, std::memory_order_release);
            growth_.notify_all();
        }
    }
    void stop() {
        stopping_ = true;
        wake(size);
        for (auto& worker : workers_) worker.join();
    }
    void serve(int index) {
        uint32_t seen = 0;
        for (;;) {
            if (index < (int)(seen & COUNT_MASK)) {
                for (int spins = 0; round_.load(std::memory_order_acquire) == seen && spins < 1000; ++spins) relax();
                round_.wait(seen, std::memory_order_acquire);
                seen = round_.load(std::memory_order_acquire);
            } else {  // left out: not to be woken by every round
                const uint32_t growth = growth_.load(std::memory_order_acquire);
                seen = round_.load(std::memory_order_acquire);
                if (!stopping_ && index >= (int)(seen & COUNT_MASK)) growth_.wait(growth, std::memory_order_acquire);
            }
            if (stopping_) return;
            if (index >= (int)(seen & COUNT_MASK)) continue;
            const double start = seconds(CLOCK_THREAD_CPUTIME_ID);
            task_(context_, index);
            used_[index] = seconds(CLOCK_THREAD_CPUTIME_ID) - start;
            unfinished_.fetch_sub(1, std::memory_order_release);
        }
    }

    Headcount headcount_;
    std::vector<double> used_ = std::vector<double>(size);  // seconds of the processor that each had in this round
    std::vector<std::thread> workers_;
    alignas(64) std::atomic<uint32_t> round_{0};
    std::atomic<uint32_t> growth_{0};  // changes when more threads take part than in the round before
    alignas(64) std::atomic<int> unfinished_{0};
    std::atomic<bool> stopping_{false};
    void (*task_)(void*, int) = nullptr;
    void* context_ = nullptr;
};

// Hands out the numbers 0 .. count-1 in runs, each to one thread: whoever is free takes the next.
struct Counter {
    alignas(64) std::atomic<int> next{0};

    template <class Body>
    void each(int count, int run, Body body) {
        for (;;) {
            const int begin = next.fetch_add(run, std::memory_order_relaxed);
            if (begin >= count) return;
            const int end = begin + run < count ? begin + run : count;
            for (int i = begin; i < end; ++i) body(i);
        }
    }
};

}  // namespace fireside
