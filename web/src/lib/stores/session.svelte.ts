/** Who is here, and how they come in. */

import * as accounts from '../api/accounts';
import { ApiError, whenSignedOut } from '../api/http';
import { locale } from '../locale/locale.svelte';
import { dropOld, keep, keepFor, kept } from '../offline/kept';
import { negotiate, type Locale } from '../locale/negotiate';
import { forgetDraftsOfOthers } from './drafts';
import type { ProfileChange, SessionState, User } from '../api/types';

/** Tells the other tabs that somebody came or went: what they show may be another person's. */
const tabs = new BroadcastChannel('fireside:session');
const SESSION = '/api/session';

class Session {
  state = $state.raw<SessionState | null>(null);
  /** The server could not be asked. */
  isAway = $state(false);

  constructor() {
    void dropOld();
    whenSignedOut(() => void this.load());
    tabs.onmessage = () => void this.load();
  }

  get user(): User | null {
    return this.state?.user ?? null;
  }

  /** Guests talk; what goes out of the server is for the others. */
  get canShare(): boolean {
    return (this.state?.sharing ?? false) && this.user?.role !== 'guest';
  }

  async load(): Promise<void> {
    try {
      const state = await this.#ask();
      if (this.state && state.user?.id !== this.user?.id) tabs.postMessage(null);
      if (this.user && state.user?.id !== this.user.id) return this.#leave();
      await this.#greet(state);
      this.state = state;
      this.isAway = false;
      if (state.user) forgetDraftsOfOthers(state.user.id);
      await keepFor(state.user?.id ?? null);
      if (state.user) void keep(SESSION, state);
    } catch {
      this.isAway = true;
    }
  }

  /** Without a network, who was here last. */
  async #ask(): Promise<SessionState> {
    try {
      return await accounts.session();
    } catch (error) {
      const state = error instanceof ApiError && error.isOffline ? await kept<SessionState>(SESSION) : undefined;
      if (!state) throw error;
      return state;
    }
  }

  /** Has the app speak `to` them from here on, in every browser; null: as each browser prefers. */
  async speak(to: Locale | null): Promise<void> {
    if (this.user) await this.change({ locale: to });
    await locale.choose(to);
  }

  async change(values: ProfileChange): Promise<void> {
    const user = await accounts.changeMe(values);
    if (this.state) this.state = { ...this.state, user };
  }

  async signOut(): Promise<void> {
    await accounts.signOut();
    const kept = keepFor(null); // from here on other tabs write down no drafts either
    forgetDraftsOfOthers(null);
    tabs.postMessage(null);
    await kept;
    locale.forget();
    this.#leave();
  }

  /** In the language of the account; where it has none, what was chosen at the door becomes it. */
  async #greet({ user, locale: own }: SessionState): Promise<void> {
    if (!user) return;
    if (own) await locale.choose(negotiate([own])).catch(() => {}); // the words could not be fetched: these will do
    else if (locale.chosen) await accounts.changeMe({ locale: locale.chosen }).catch(() => {}); // in this browser it holds anyway
  }

  /** What one person's app remembers is not for the next one: everything starts anew. */
  #leave(): void {
    location.assign('/');
  }
}

export const session = new Session();
