/** The import that runs, or the last one: it goes on wherever in the app its owner is. */

import * as api from '../api/moving';
import { ApiError } from '../api/http';
import type { Import } from '../api/types';
import { history } from './history.svelte';

const PAUSE = 600; // milliseconds between two looks at how far it is
const LONGER_PAUSE = 4000; // after a look that failed

class Imports {
  last = $state.raw<Import | null>(null);
  /** The file that is being sent, and how much of it has been, from 0 to 1. */
  sending = $state<{ name: string; share: number } | null>(null);
  #upload = new AbortController();
  #watching: string | null = null;

  get isBusy(): boolean {
    return this.sending !== null || this.last?.status === 'running';
  }

  /** Raises ApiError. */
  async load(): Promise<void> {
    const [last] = (await api.lastImports()).items;
    if (!last || this.isBusy) return;
    if (last.status === 'running') this.#watch(last);
    else this.last ??= await api.findImport(last.id);
  }

  /** Raises ApiError where the server does not take it. */
  async begin(file: File): Promise<void> {
    this.last = null;
    this.sending = { name: file.name, share: 0 };
    this.#upload = new AbortController();
    try {
      const begun = await api.sendImport(file, (share) => (this.sending = { name: file.name, share }), this.#upload.signal);
      this.#watch(begun);
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== 'aborted') throw error;
    } finally {
      this.sending = null;
    }
  }

  /** What has been imported stays. Raises ApiError. */
  async cancel(): Promise<void> {
    if (this.sending) this.#upload.abort();
    else if (this.last) await api.cancelImport(this.last.id);
  }

  #watch(found: Import): void {
    this.last = found;
    this.#watching = found.id;
    setTimeout(() => void this.#look(found.id), PAUSE);
  }

  async #look(id: string): Promise<void> {
    if (this.#watching !== id) return;
    try {
      this.last = await api.findImport(id);
    } catch (error) {
      if (error instanceof ApiError && error.status > 0 && error.status < 500) return;
      setTimeout(() => void this.#look(id), LONGER_PAUSE);
      return;
    }
    if (this.last.status === 'running') setTimeout(() => void this.#look(id), PAUSE);
    else await history.load().catch(() => {}); // the list in the sidebar is of before
  }
}

export const imports = new Imports();
