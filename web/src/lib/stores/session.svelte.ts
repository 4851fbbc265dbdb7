/** Who is here, and how they come in. */

import * as accounts from '../api/accounts';
import { whenSignedOut } from '../api/http';
import { forgetDraftsOfOthers } from './drafts';
import type { ProfileChange, SessionState, User } from '../api/types';

/** Tells the other tabs that somebody came or went: what they show may be another person's. */
const tabs = new BroadcastChannel('fireside:session');

class Session {
  state = $state.raw<SessionState | null>(null);
  /** The server could not be asked. */
  isAway = $state(false);

  constructor() {
    whenSignedOut(() => void this.load());
    tabs.onmessage = () => void this.load();
  }

  get user(): User | null {
    return this.state?.user ?? null;
  }

  async load(): Promise<void> {
    try {
      const state = await accounts.session();
      if (this.user && state.user?.id !== this.user.id) return this.#leave();
      this.state = state;
      this.isAway = false;
      if (state.user) forgetDraftsOfOthers(state.user.id);
    } catch {
      this.isAway = true;
    }
  }

  /** Raises ApiError where the server does not let them in. */
  async enter(how: () => Promise<unknown>): Promise<void> {
    await how();
    await this.load();
    tabs.postMessage(null);
  }

  async change(values: ProfileChange): Promise<void> {
    const user = await accounts.changeMe(values);
    if (this.state) this.state = { ...this.state, user };
  }

  async signOut(): Promise<void> {
    await accounts.signOut();
    forgetDraftsOfOthers(null);
    tabs.postMessage(null);
    this.#leave();
  }

  /** What one person's app remembers is not for the next one: everything starts anew. */
  #leave(): void {
    location.assign('/');
  }
}

export const session = new Session();
