// A pool that runs one function on every core at once, and a barrier between its phases.
//
// A decode step of a small model is two hundred phases of a few microseconds each: threads spin between phases
// and go to sleep (a futex, through std::atomic::wait) only when no step has come for a while.
#pragma once

#include <atomic>
#include <cstdint>
#include <sched.h>
#include <thread>
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

class Barrier {
   public:
    explicit Barrier(int count) : count_(count) {}

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
    const int count_;
    alignas(64) std::atomic<int> arrived_{0};
    alignas(64) std::atomic<uint32_t> generation_{0};
};

class Pool {
   public:
    explicit Pool(int threads) : size(threads), barrier(threads) {
        try {
            for (int index = 1; index < threads; ++index) workers_.emplace_back([this, index] { serve(index); });
        } catch (...) {
            stop();  // those that did start: a thread that is neither joined nor detached ends the process
            throw;
        }
    }
    ~Pool() { stop(); }
    Pool(const Pool&) = delete;

    // Calls task(context, thread index) on every thread, the caller's included, and waits for all.
    void run(void (*task)(void*, int), void* context) {
        task_ = task;
        context_ = context;
        unfinished_.store(size - 1, std::memory_order_relaxed);
        wake();
        task(context, 0);
        for (int spins = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spins) {
            relax();
            if (spins > 2000) sched_yield();
        }
    }

    const int size;
    Barrier barrier;

   private:
    void wake() {
        round_.fetch_add(1, std::memory_order_release);
        round_.notify_all();
    }
    void stop() {
        stopping_ = true;
        wake();
        for (auto& worker : workers_) worker.join();
    }
    void serve(int index) {
        uint32_t seen = 0;
        for (;;) {
            for (int spins = 0; round_.load(std::memory_order_acquire) == seen && spins < 1000; ++spins) relax();
            round_.wait(seen, std::memory_order_acquire);
            seen = round_.load(std::memory_order_acquire);
            if (stopping_) return;
            task_(context_, index);
            unfinished_.fetch_sub(1, std::memory_order_release);
        }
    }

    std::vector<std::thread> workers_;
    alignas(64) std::atomic<uint32_t> round_{0};
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
