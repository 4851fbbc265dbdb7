/** The conversations in the sidebar: the pinned ones, and the others page by page. */

import * as api from '../api/conversations';
import { forget } from '../offline/kept';
import type { Conversation, ConversationChange, Project } from '../api/types';
import { session } from './session.svelte';

const PINNED = { pinned: true, limit: 100 };
const RECENT = { pinned: false, limit: 50 };
const REMEMBERED = 'fireside:project';

class History {
  pinned = $state.raw<Conversation[]>([]);
  recent = $state.raw<Conversation[]>([]);
  projects = $state.raw<Project[]>([]);
  /** Only those of this project are listed, and new ones are made in it; this browser remembers it for the person. */
  project = $state<string | null>(null);
  isLoaded = $state(false);
  #cursor = $state<string | null>(null);
  #loading = false;

  get hasMore(): boolean {
    return this.#cursor !== null;
  }

  async load(): Promise<void> {
    if (!this.isLoaded) this.project = remembered();
    const of = { project: this.project };
    const [pinned, recent, projects] = await Promise.all([
      api.listKept({ ...of, ...PINNED }),
      api.listKept({ ...of, ...RECENT }),
      api.projects(),
    ]);
    if (of.project !== this.project) return;
    this.pinned = pinned.items;
    this.recent = recent.items;
    this.#cursor = recent.next_cursor;
    this.projects = projects.items;
    this.isLoaded = true;
    if (of.project && !projects.items.some(({ id }) => id === of.project)) await this.show(null); // deleted elsewhere
  }

  async more(): Promise<void> {
    if (this.#loading || !this.#cursor) return;
    this.#loading = true;
    try {
      const page = await api.list({ project: this.project, ...RECENT, cursor: this.#cursor });
      const known = new Set(this.recent.map(({ id }) => id));
      this.recent = [...this.recent, ...page.items.filter(({ id }) => !known.has(id))];
      this.#cursor = page.next_cursor;
    } finally {
      this.#loading = false;
    }
  }

  async show(project: string | null): Promise<void> {
    this.project = project;
    localStorage.setItem(REMEMBERED, JSON.stringify([session.user?.id, project]));
    await this.load();
  }

  /** Puts a conversation where it belongs now: it is new, was written to, renamed, pinned or archived. */
  place(conversation: Conversation): void {
    const others = (list: Conversation[]) => list.filter(({ id }) => id !== conversation.id);
    const isListed = !conversation.archived_at && (!this.project || conversation.project_id === this.project);
    const [pinned, recent] = [others(this.pinned), others(this.recent)];
    this.#put(
      isListed && conversation.pinned_at ? insert(pinned, conversation) : pinned,
      isListed && !conversation.pinned_at ? insert(recent, conversation) : recent,
    );
  }

  retitle(id: string, title: string): void {
    const renamed = (list: Conversation[]) => list.map((one) => (one.id === id ? { ...one, title } : one));
    this.#put(renamed(this.pinned), renamed(this.recent));
  }

  forget(ids: string[]): void {
    const others = (list: Conversation[]) => list.filter(({ id }) => !ids.includes(id));
    this.#put(others(this.pinned), others(this.recent));
  }

  /** What changed here is kept in this browser like what the server listed. */
  #put(pinned: Conversation[], recent: Conversation[]): void {
    this.pinned = pinned;
    this.recent = recent;
    if (!this.isLoaded) return;
    void api.keepList({ project: this.project, ...PINNED }, pinned.slice(0, PINNED.limit));
    void api.keepList({ project: this.project, ...RECENT }, recent.slice(0, RECENT.limit));
  }

  async change(id: string, values: ConversationChange): Promise<Conversation> {
    const changed = await api.change(id, values);
    this.place(changed);
    return changed;
  }

  async destroy(ids: string[]): Promise<void> {
    await api.destroyAll(ids);
    await forget(ids);
    this.forget(ids);
  }
}

function remembered(): string | null {
  const [user, project] = JSON.parse(localStorage.getItem(REMEMBERED) ?? '[]') as [string?, (string | null)?];
  return (user === session.user?.id && project) || null;
}

/** The list with `conversation` in it, what was written to last first. */
function insert(list: Conversation[], conversation: Conversation): Conversation[] {
  const at = list.findIndex((other) => other.updated_at < conversation.updated_at);
  return list.toSpliced(at < 0 ? list.length : at, 0, conversation);
}

export const history = new History();
