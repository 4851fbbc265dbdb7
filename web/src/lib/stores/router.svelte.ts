/** Where the app is: the path of the address bar, and what is said after its question mark. */

class Router {
  path = $state(location.pathname);
  query = $state.raw(new URLSearchParams(location.search));

  constructor() {
    addEventListener('popstate', () => this.#read());
  }

  go(address: string, { replace = false } = {}): void {
    if (address !== location.pathname + location.search) history[replace ? 'replaceState' : 'pushState'](null, '', address);
    this.#read();
  }

  /** For a click on a link of ours: stays in the app, unless the person wants a new tab. */
  readonly onClick = (event: MouseEvent): void => {
    const link = (event.target as Element).closest?.('a');
    const isPlain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
    if (!link || !isPlain || link.target || link.hasAttribute('download') || link.hash || link.origin !== location.origin || event.defaultPrevented) return;
    event.preventDefault();
    this.go(link.pathname + link.search);
  };

  #read(): void {
    this.path = location.pathname;
    this.query = new URLSearchParams(location.search);
  }
}

export const router = new Router();
