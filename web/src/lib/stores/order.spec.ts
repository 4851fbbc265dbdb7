import { beforeEach, expect, test, vi } from 'vitest';
import { later, message, started, storage, tree } from './stage';

await vi.hoisted(async () => (await import('./stage')).setBrowser());
vi.mock('../api/conversations');
vi.mock('../api/feedback');
vi.mock('../api/events');

const api = vi.mocked(await import('../api/conversations'));
const votes = vi.mocked(await import('../api/feedback'));
const events = vi.mocked(await import('../api/events'));
const { chat } = await import('./chat.svelte');
const { Draft } = await import('./draft.svelte');
const { forgetDraftsOfOthers, keepText, readDraft } = await import('./drafts');
const { feedback } = await import('./feedback.svelte');
const { history } = await import('./history.svelte');

const conversation = (id: string, more = {}) =>
  ({ id, title: id.toUpperCase(), updated_at: '2026-01-01', project_id: null, pinned_at: null, archived_at: null, model: null, parameters: {}, current_leaf_id: null, ...more }) as never;
const page = (items: never[], next_cursor: string | null = null) => ({ items, next_cursor }) as never;
const ids = (list: readonly { id: string }[]) => list.map(({ id }) => id);
const shown = () => ids(chat.path);
const settled = () => new Promise<void>((resolve) => setTimeout(resolve));

beforeEach(async () => {
  Object.assign(globalThis, { localStorage: storage(), sessionStorage: storage() });
  vi.resetAllMocks();
  events.follow.mockReturnValue(new Promise(() => {}));
  api.open.mockImplementation(async (id) => tree(id) as never);
  api.projects.mockResolvedValue(page([]));
  api.listKept.mockResolvedValue(page([]));
  history.pinned = history.recent = [];
  history.project = null;
  await chat.open(null);
  await chat.open('a');
});

test('a conversation that was renamed and pinned in the sidebar stays so when it is written to', async () => {
  api.change.mockResolvedValueOnce(conversation('a', { title: 'Cacti', pinned_at: '2026-01-02' }));
  await history.change('a', { title: 'Cacti', pinned: true });
  api.ask.mockResolvedValueOnce(started('a-a') as never);
  await chat.send('words');
  expect([ids(history.pinned), ids(history.recent)]).toEqual([['a'], []]);
  expect([history.pinned[0]!.title, chat.conversation?.title, api.keepTree.mock.lastCall?.[0].title]).toEqual(['Cacti', 'Cacti', 'Cacti']);
});

test('a conversation that is renamed while it is fetched is not shown under its old name', async () => {
  const old = later(api.open);
  const opening = chat.open('b');
  api.change.mockResolvedValueOnce(conversation('b', { title: 'Cacti' }));
  await history.change('b', { title: 'Cacti' });
  api.open.mockResolvedValueOnce({ ...tree('b'), title: 'Cacti' } as never);
  await old.come(tree('b'));
  await opening;
  expect(chat.conversation?.title).toBe('Cacti');
});

test('the next page of a list does not come into that of a project', async () => {
  api.listKept.mockResolvedValue(page([conversation('x')], 'of all'));
  await history.load();
  const next = later(api.list);
  const more = history.more();
  api.listKept.mockImplementation(async ({ pinned }) => page(pinned ? [] : [conversation('of p', { project_id: 'p' })]));
  await history.show('p');
  await next.come(page([conversation('stranger')], 'next of all'));
  await more;
  expect([ids(history.recent), history.hasMore]).toEqual([['of p'], false]);
});

test('a list that was asked for before does not bring back what was deleted, nor lose what is new', async () => {
  history.recent = [conversation('doomed')];
  const pinned = later(api.listKept);
  const recent = later(api.listKept);
  const loading = history.load();
  api.destroyAll.mockResolvedValueOnce({ deleted: 1 });
  await history.destroy(['doomed']);
  history.place(conversation('new'));
  api.listKept.mockImplementation(async (filter) => page(filter.pinned ? [] : [conversation('new')]));
  await pinned.come(page([]));
  await recent.come(page([conversation('doomed')]));
  await loading;
  expect(ids(history.recent)).toEqual(['new']);
});

test('a reload that was asked for before something was sent does not take it off the screen', async () => {
  const old = later(api.open);
  const reloading = chat.reload();
  api.ask.mockResolvedValueOnce(started('a-a') as never);
  await chat.send('words');
  const { message: question, answer } = started('a-a');
  api.open.mockResolvedValueOnce({ ...tree('a'), messages: [...tree('a').messages, question, answer] } as never);
  await old.come(tree('a'));
  await reloading;
  expect([shown(), chat.running?.id]).toEqual([['a-q', 'a-a', 'new-q', 'new-a'], 'new-a']);
});

test('changes to one conversation reach the server one behind the other, and a question behind them', async () => {
  const [first, second, third] = [later(api.change), later(api.change), later(api.change)];
  const one = expect(chat.choose({ parameters: { temperature: 1 } })).rejects.toThrow('no');
  const two = chat.choose({ parameters: { temperature: 0 } });
  chat.turnTo('a-q');
  api.ask.mockResolvedValueOnce(started('a-a') as never);
  const sent = chat.send('words');
  await settled();
  expect(api.change).toHaveBeenCalledTimes(1);
  await first.fail();
  await one;
  await second.come(conversation('a', { parameters: { temperature: 0 } }));
  await two;
  expect([api.change.mock.calls.length, api.ask.mock.calls.length]).toEqual([3, 0]);
  await third.come({});
  await sent;
  expect([chat.parameters, shown().at(-1)]).toEqual([{ temperature: 0 }, 'new-a']);
});

test('of two thumbs the later one holds', async () => {
  votes.list.mockResolvedValue(page([]));
  votes.consent.mockResolvedValue({ is_given: null } as never);
  await feedback.open('a');
  const [up, down] = [later(votes.rate), later(votes.rate)];
  const pressed = [feedback.press('a-a', 'up'), feedback.press('a-a', 'down')];
  const record = (verdict: string) => ({ id: 'f', kind: 'rating', message_id: 'a-a', verdict });
  await down.come(record('down'));
  expect(votes.rate).toHaveBeenCalledTimes(1);
  await up.come(record('up'));
  await Promise.all(pressed);
  expect(feedback.rating('a-a')?.verdict).toBe('down');
});

test('an answer of which events are forgotten is read again, and not kept as half of it', async () => {
  events.follow.mockImplementationOnce(async (_, onEvent) => {
    onEvent({ id: '1', data: JSON.stringify({ type: 'text', text: 'one two' }) });
    onEvent({ id: '9', data: JSON.stringify({ type: 'done', status: 'complete', is_pruned: true }) });
  });
  api.ask.mockResolvedValueOnce(started('a-a') as never);
  const whole = message('new-a', 'new-q', { content: 'one two three' });
  api.open.mockResolvedValueOnce({ ...tree('a'), messages: [...tree('a').messages, message('new-q', 'a-a'), whole] } as never);
  await chat.send('words');
  await settled();
  expect([chat.messages.get('new-a')?.content, chat.answer('new-a'), chat.running]).toEqual(['one two three', null, null]);
  const kept = api.keepTree.mock.calls.flatMap(([{ messages }]) => messages);
  expect(kept.filter(({ content }) => content === 'one two')).toEqual([]);
});

test('what is sent once more because no answer came has the same id, until it is another message', async () => {
  const draft = new Draft();
  draft.open('a');
  draft.text = 'words';
  const fail = () => expect(draft.send(async (_, id) => (sent.push(id), Promise.reject(new Error('no'))))).rejects.toThrow();
  const sent: string[] = [];
  await fail();
  draft.open('b');
  draft.open('a');
  draft.text = 'words';
  await fail();
  draft.text = 'other words';
  await fail();
  expect(sent[1]).toBe(sent[0]);
  expect(sent[2]).not.toBe(sent[0]);
  await draft.send(async (_, id) => void sent.push(id));
  draft.text = 'other words';
  expect(sent[3]).toBe(sent[2]);
  expect(draft.id).not.toBe(sent[2]);
});

test('of two tabs in one place none erases what the other has written there', async () => {
  const [mine, other] = [new Draft(), new Draft()];
  for (const draft of [mine, other]) draft.open(null);
  const type = (draft: InstanceType<typeof Draft>, text: string) => ((draft.text = text), draft.keepText(false));
  type(other, 'hi');
  type(mine, 'a long prompt');
  await other.send(async () => {});
  other.keepText(false); // as the composer does once it is empty
  expect([readDraft(null).text, other.text]).toEqual(['a long prompt', '']);

  type(other, 'hi'); // over it
  await other.send(async () => {});
  expect(readDraft(null).text).toBe('');
  mine.keepAgain(false);
  expect(readDraft(null).text).toBe('a long prompt');
});

test('a tab that has not heard yet that somebody signed out writes no draft down', () => {
  localStorage.setItem('fireside:reader', 'ada');
  forgetDraftsOfOthers('ada');
  keepText('c', 'typed before');
  expect(readDraft('c').text).toBe('typed before');
  localStorage.removeItem('fireside:reader'); // another tab, which forgets the drafts as well
  keepText('d', 'typed after');
  expect(readDraft('d').text).toBe('');
  forgetDraftsOfOthers(null);
});
