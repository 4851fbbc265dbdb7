/** Does something again and again, but not while nobody looks. */

/** At once, and then so many milliseconds after each time it was done. Returns how to end it. */
export function repeat(action: () => Promise<unknown>, pause: number): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isOver = false;
  let isBusy = false;

  async function run() {
    clearTimeout(timer);
    if (isOver || isBusy || document.hidden) return;
    isBusy = true;
    await action();
    isBusy = false;
    if (!isOver) timer = setTimeout(run, pause);
  }

  document.addEventListener('visibilitychange', run);
  void run();
  return () => {
    isOver = true;
    clearTimeout(timer);
    document.removeEventListener('visibilitychange', run);
  };
}
