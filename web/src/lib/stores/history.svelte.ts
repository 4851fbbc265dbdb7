/** The conversations in the sidebar: the pinned ones, and the others page by page. */

import * as api from '../api/conversations';
import { forget } from '../offline/kept';
import type { Conversation, ConversationChange, Project } from '../api/types';
import { inTurn, Reads } from '../util/order';
import { session } from './session.svelte';

const PINNED = { pinned: true, limit: 100 };
const RECENT = { pinned: false, limit: 50 };
const REMEMBERED = 'fireside:project';

const TOLD = ['title', 'updated_at', 'pinned_at', 'project_id'] as const;

class History {
  pinned = $state.raw<Conversation[]>([]);
  recent = $state.raw<Conversation[]>([]);
  projects = $state.raw<Project[]>([]);
  /** Only those of this project are listed, and new ones are made in it; this browser remembers it for the person. */
  project = $state<string | null>(null);
  isLoaded = $state(false);
  #cursor = $state<string | null>(null);
  #loading = false;
  #reads = new Reads();
  #onChanged: (conversation: Conversation) => void = () => {};

  get hasMore(): boolean {
    return this.#cursor !== null;
  }

  /** Whom to tell of each conversation that was renamed, pinned or moved here. */
  whenChanged(listener: (conversation: Conversation) => void): void {
    this.#onChanged = listener;
  }

  async load(): Promise<void> {
    if (!this.isLoaded) this.project = remembered();
    const [pinned, recent, projects] = await this.#reads.read(() => {
      const of = { project: this.project };
      return Promise.all([api.listKept({ ...of, ...PINNED }), api.listKept({ ...of, ...RECENT }), api.projects()]);
    });
    this.#reads.changed();
    this.pinned = pinned.items;
    this.recent = recent.items;
    this.#cursor = recent.next_cursor;
    this.projects = projects.items;
    this.isLoaded = true;
    if (this.project && !projects.items.some(({ id }) => id === this.project)) await this.show(null); // deleted elsewhere
  }

  async more(): Promise<void> {
    if (this.#loading || !this.#cursor) return;
    this.#loading = true;
    try {
      // Where the list is another by now, its cursor is, or there is none yet.
      const page = await this.#reads.read(async () => this.#cursor && api.list({ project: this.project, ...RECENT, cursor: this.#cursor }));
      if (!page) return;
      const known = new Set(this.recent.map(({ id }) => id));
      this.recent = [...this.recent, ...page.items.filter(({ id }) => !known.has(id))];
      this.#cursor = page.next_cursor;
    } finally {
      this.#loading = false;
    }
  }

  async show(project: string | null): Promise<void> {
    this.project = project;
    this.#cursor = null;
    this.#reads.changed();
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

  /** One as the server has it, perhaps as it is known here already. */
  hear(conversation: Conversation): void {
    const known = [...this.pinned, ...this.recent].find(({ id }) => id === conversation.id);
    const isSame = TOLD.every((field) => known?.[field] === conversation[field]);
    const isOfOther = this.project !== null && conversation.project_id !== this.project;
    if (known ? !isSame : !isOfOther) this.place(conversation);
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
    this.#reads.changed();
    this.pinned = pinned;
    this.recent = recent;
    if (!this.isLoaded) return;
    void api.keepList({ project: this.project, ...PINNED }, pinned.slice(0, PINNED.limit));
    void api.keepList({ project: this.project, ...RECENT }, recent.slice(0, RECENT.limit));
  }

  async change(id: string, values: ConversationChange): Promise<void> {
    const changed = await inTurn(id, () => api.change(id, values));
    this.place(changed);
    this.#onChanged(changed);
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
