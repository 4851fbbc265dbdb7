/** Who is here, and how they come in. */

import * as accounts from '../api/accounts';
import { whenSignedOut } from '../api/http';
import { forgetDraftsOfOthers } from './drafts';
import type { ProfileChange, SessionState, User } from '../api/types';

class Session {
  state = $state.raw<SessionState | null>(null);
  /** The server could not be asked. */
  isAway = $state(false);

  constructor() {
    whenSignedOut(() => void this.load());
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
  }

  async change(values: ProfileChange): Promise<void> {
    const user = await accounts.changeMe(values);
    if (this.state) this.state = { ...this.state, user };
  }

  async signOut(): Promise<void> {
    await accounts.signOut();
    forgetDraftsOfOthers(null);
    this.#leave();
  }

  /** What one person's app remembers is not for the next one: everything starts anew. */
  #leave(): void {
    location.assign('/');
  }
}

export const session = new Session();
