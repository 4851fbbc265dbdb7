/** The conversation on the screen: its tree, the branch that is shown, and the answers that are being written. */

import * as m from '../../paraglide/messages.js';
import * as api from '../api/conversations';
import { ApiError } from '../api/http';
import type { Conversation, Message, Parameters, Project, Started, Tree } from '../api/types';
import { splitFiles } from '../chat/attached';
import { childrenOf, latestLeaf, pathTo } from '../chat/tree';
import { forget } from '../offline/kept';
import { merged } from '../util/differing';
import { newId } from '../util/ids';
import { inTurn, Reads, whenDone } from '../util/order';
import { tabs } from '../util/tabs';
import type { Answer } from './answer.svelte';
import { Answers } from './answers.svelte';
import { connection } from './connection.svelte';
import { history } from './history.svelte';
import { models } from './models.svelte';
import { notices } from './notices.svelte';
import { router } from './router.svelte';

const LATE_TITLE = 1500; // milliseconds after a short answer, by which the model has named the conversation as well
const TITLE_LENGTH = 80;

export class Chat {
  /** Null: a new one, which comes to be with its first message. */
  conversation = $state.raw<Conversation | null>(null);
  messages = $state.raw<ReadonlyMap<string, Message>>(new Map());
  leaf = $state<string | null>(null);
  isLoading = $state(false);
  isMissing = $state(false);
  /** The server is away, and this conversation is not kept in this browser. */
  isAway = $state(false);
  /** It was read from this browser's memory, and may be another by now. */
  isKept = false;
  isTemporary = $state(false);
  /** For a new conversation, until it has parameters of its own. */
  #parameters = $state.raw<Parameters>({});
  #answers = new Answers();
  /** Its signal fires when something else is shown: what was asked for before then has no more place on the screen. */
  #opening = new AbortController();
  #wanted = $state<string | null>(null);
  #reads = new Reads();

  // Derived, so that a new title is not taken for another conversation.
  readonly id = $derived(this.conversation?.id ?? null);
  /** The same, and while one is being fetched already its id: what is typed meanwhile belongs to it. */
  readonly place = $derived(this.id ?? this.#wanted);
  readonly path = $derived(pathTo(this.messages, this.leaf));
  readonly children = $derived(childrenOf(this.messages));
  /** The answer at the end of the branch, while it is being written, or the one that it is compared with. */
  readonly running = $derived.by(() => {
    const last = this.path.at(-1);
    if (!last?.is_blind) return last?.status === 'running' ? last : null;
    return this.#blind(last).find(({ status }) => status === 'running') ?? null;
  });

  /** That it is in, or will be made in. */
  get project(): Project | null {
    const id = this.isTemporary ? null : this.conversation ? this.conversation.project_id : history.project;
    return history.projects.find((project) => project.id === id) ?? null;
  }

  get model(): string | null {
    const own = this.conversation?.model ?? null; // which may have been unloaded: the server then takes the default
    return own === null || models.knows(own) || !models.items.length ? (own ?? models.current) : models.default;
  }

  get parameters(): Parameters {
    return this.conversation?.parameters ?? this.#parameters;
  }

  /** The text of a message as far as it is known: of one that is being written, with what has come so far. */
  answer(id: string): Answer | null {
    return this.#answers.get(id);
  }

  /** Shows a conversation, or a new one for null. `message`: shows the branch that it is on. */
  async open(id: string | null, message: string | null = null): Promise<void> {
    if (id !== null && id === this.id) {
      if (message && this.messages.has(message)) this.turnTo(message);
      return;
    }
    this.#close();
    this.isTemporary = false;
    this.#wanted = id;
    if (id === null) return;
    this.isLoading = true;
    const { signal } = this.#opening;
    try {
      const tree = await this.#reads.read(() => api.open(id, signal));
      if (signal.aborted) return;
      this.isKept = connection.isAway;
      this.#show(tree);
      if (message && this.messages.has(message)) this.leaf = latestLeaf(this.messages, message);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ApiError)) throw error;
      this.isAway = error.isOffline;
      this.isMissing = error.status === 404 || error.status === 400;
      if (this.isMissing) void forget([id]);
      else if (!this.isAway) throw error;
    } finally {
      if (!signal.aborted) this.isLoading = false;
    }
  }

  /**
   * Sends to the conversation that is shown now, whatever is shown by the time that it is sent. With an `id` it may be
   * sent twice, and is taken once. `onMade` is told the id of the conversation that a new one has become, as long as it
   * is shown. Raises ApiError where the server does not take the message.
   */
  async send(content: string, id = newId(), onMade: (id: string) => void = () => {}): Promise<void> {
    if (this.isTemporary) return this.#sendTemporarily(content);
    const { signal } = this.#opening;
    const { path } = router;
    const parent_id = this.path.findLast(({ role }) => role === 'assistant')?.id ?? null;
    const is_end = !this.children.has(parent_id);
    const into = this.conversation ?? (await this.#make());
    if (!this.conversation && !signal.aborted) {
      onMade(into.id);
      this.conversation = into;
      if (router.path === path) router.go(`/c/${into.id}`, { replace: true });
    }
    await whenDone(into.id); // the model that was chosen just before is to answer
    const started = await api.ask(into.id, { id, parent_id, is_end, content }).catch(async (error: unknown) => {
      const hasGoneOn = error instanceof ApiError && error.code === 'gone_on'; // in another tab, or on another device
      if (hasGoneOn && into.id === this.id) await this.reload();
      throw error;
    });
    const now = signal.aborted ? into : (this.conversation ?? into);
    const title = now.title || splitFiles(content).text.slice(0, TITLE_LENGTH);
    const sent = { ...now, title, updated_at: new Date().toISOString() };
    history.place(sent);
    if (signal.aborted) return void (into.id === this.id && (await this.reload(started.answer?.id))); // who left may be back
    this.conversation = sent;
    this.#begin(started);
  }

  /** Gives the id of the new answer; null when it is not on the screen. */
  async regenerate(id: string, model?: string): Promise<string | null> {
    if (this.isTemporary) return this.#answerTemporarily(this.messages.get(this.messages.get(id)?.parent_id ?? '')!);
    const started = await this.#unlessLeft(() => api.regenerate(id, model ? { model } : {}));
    return started?.answer?.id ?? null;
  }

  /** Two answers that are to be compared. */
  showBoth(left: Message, right: Message): void {
    for (const answer of [right, left]) this.#begin({ message: null, answer, run: null });
  }

  /** What was compared is told, and `winner`'s branch goes on. */
  decide(both: Message[], winner: string): void {
    for (const message of both) this.#put(message);
    this.leaf = latestLeaf(this.messages, winner);
  }

  /** Everything anew, on the same branch, or on that of `leaf`. */
  async reload(leaf?: string): Promise<void> {
    const { id } = this;
    if (!id) return;
    const tree = await this.#reads.read(() => api.open(id));
    if (id !== this.id) return;
    const shown = leaf ?? this.leaf;
    this.isKept = connection.isAway;
    this.#answers.leave();
    this.#show(tree);
    if (shown && this.messages.has(shown)) this.leaf = latestLeaf(this.messages, shown);
  }

  async edit(id: string, content: string): Promise<void> {
    if (this.isTemporary) return this.#editTemporarily(this.messages.get(id)!, content);
    await this.#unlessLeft(() => api.edit(id, content, true));
  }

  async carryOn(id: string): Promise<void> {
    await this.#unlessLeft(() => api.carryOn(id));
  }

  async stop(): Promise<void> {
    const { running } = this;
    const all = running?.is_blind ? this.#blind(running).filter(({ status }) => status === 'running') : running ? [running] : [];
    await Promise.all(all.map(({ run_id }) => run_id && api.stop(run_id)));
  }

  /** Shows the branch of `id` that was last written, and has the server remember it. */
  turnTo(id: string): void {
    this.leaf = latestLeaf(this.messages, id);
    const { id: of, leaf } = this;
    if (!of || this.isTemporary) return;
    void inTurn(of, () => api.change(of, { current_leaf_id: leaf })).catch(() => {}); // next time, the other branch
  }

  /** `parameters`: those that are to be others, null for what the model is to say. */
  async choose(values: { model?: string; parameters?: Parameters }): Promise<void> {
    if (values.model) models.choose(values.model);
    const { id } = this;
    if (id) this.take(await inTurn(id, () => api.change(id, values)));
    else if (values.parameters) this.#parameters = merged(this.#parameters, values.parameters);
  }

  /** Something about a conversation was changed: it may be the one that is shown, or is being fetched. */
  take(changed: Conversation): void {
    if (changed.id !== this.place) return;
    this.#reads.changed();
    if (!this.conversation) return;
    this.conversation = changed;
    this.#keep();
  }

  #make(): Promise<Conversation> {
    const { model } = this;
    const project = history.project ? { project_id: history.project } : {};
    return api.create({ ...(model ? { model } : {}), parameters: this.#parameters, ...project });
  }

  /** Shows what is about to begin, where the same conversation is still shown by then. */
  async #unlessLeft(begin: () => Promise<Started>): Promise<Started | null> {
    const { signal } = this.#opening;
    if (this.id) await whenDone(this.id);
    const started = await begin();
    if (signal.aborted) return null;
    this.#begin(started);
    return started;
  }

  #show({ messages, ...conversation }: Tree): void {
    this.conversation = conversation;
    this.messages = new Map(messages.map((message) => [message.id, message]));
    this.leaf = conversation.current_leaf_id ?? messages.at(-1)?.id ?? null;
    for (const message of messages) if (message.status === 'running') this.#follow(message);
  }

  #begin({ message, answer }: Started): void {
    for (const made of [message, answer]) if (made) this.#put(made);
    const last = answer ?? message;
    if (last) this.leaf = last.id;
    if (answer?.status === 'running') this.#follow(answer);
    this.#keep();
    if (!this.isTemporary) tabs.postMessage(null);
  }

  /** As it is now, for when the server cannot be reached. */
  #keep(): void {
    if (!this.conversation || this.isTemporary) return;
    void api.keepTree({ ...this.conversation, current_leaf_id: this.leaf, messages: [...this.messages.values()] });
  }

  /** What is compared with a message, itself among it. */
  #blind({ parent_id }: Message): Message[] {
    return (this.children.get(parent_id) ?? []).map((id) => this.messages.get(id)!).filter(({ is_blind }) => is_blind);
  }

  #put(message: Message): void {
    this.#reads.changed();
    this.messages = new Map(this.messages).set(message.id, message);
  }

  #follow(message: Message): void {
    if (!message.run_id) return;
    const isFirst = this.messages.size <= 2;
    let hasTitle = false;
    this.#answers.follow(message, {
      onEnd: (ended) => {
        this.#put(ended);
        this.#keep();
        if (isFirst && !hasTitle && !this.isTemporary) setTimeout(() => void this.#catchUp(ended.id), LATE_TITLE);
      },
      onPruned: (half) => {
        this.#put(half);
        if (!this.isTemporary) void notices.attempt(() => this.reload());
      },
      onLeftOut: () => notices.say(m.status_left_out()),
      onTitle: (title) => {
        hasTitle = true;
        this.#retitle(title);
      },
    });
  }

  #retitle(title: string): void {
    if (!this.conversation || this.isTemporary) return;
    this.conversation = { ...this.conversation, title };
    history.retitle(this.conversation.id, title);
  }

  /** The title that came when the answer was over, and nobody followed its events any more. */
  async #catchUp(message: string): Promise<void> {
    const { id } = this;
    if (!id || !this.messages.has(message)) return;
    const { title } = await this.#reads.read(() => api.open(id)).catch(() => ({ title: '' })); // the old one will do
    if (title && id === this.id) this.#retitle(title);
  }

  async #sendTemporarily(content: string): Promise<void> {
    await this.#answerTemporarily(draft('user', content, this.path.at(-1)?.id ?? null));
  }

  async #editTemporarily({ role, parent_id }: Message, content: string): Promise<void> {
    const edited = draft(role, content, parent_id);
    if (role === 'user') await this.#answerTemporarily(edited);
    else this.#begin({ message: null, answer: edited, run: null });
  }

  async #answerTemporarily(question: Message): Promise<string | null> {
    const { signal } = this.#opening;
    const turns = [...pathTo(this.messages, question.parent_id), question].map(({ role, content }) => ({ role, content }));
    const { run } = await api.askTemporarily(turns, { ...(this.model ? { model: this.model } : {}), parameters: this.parameters });
    const answer = { ...draft('assistant', '', question.id), status: 'running' as const, run_id: run.id };
    if (signal.aborted) return null;
    this.#begin({ message: question, answer, run: null });
    return answer.id;
  }

  #close(): void {
    this.#opening.abort();
    this.#opening = new AbortController();
    this.#answers.leave();
    this.conversation = null;
    this.messages = new Map();
    this.leaf = null;
    this.isLoading = false;
    this.isMissing = false;
    this.isAway = this.isKept = false;
  }
}

/** A message that only this page knows. */
function draft(role: Message['role'], content: string, parent_id: string | null): Message {
  const rest = { reasoning: null, error: null, model: null, earlier_models: [], parameters: null, usage: null, finish_reason: null, run_id: null, is_blind: false };
  return { id: newId(), created_at: new Date().toISOString(), parent_id, role, content, status: 'complete', ...rest };
}

export const chat = new Chat();
history.whenChanged((conversation) => chat.take(conversation));
