import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { later, message, started, storage, tree } from './stage';

await vi.hoisted(async () => (await import('./stage')).setBrowser());
vi.mock('../api/conversations');
vi.mock('./answer.svelte', () => ({ Answer: class { follow = async () => {}; leave = () => {}; } })); // prettier-ignore

const api = vi.mocked(await import('../api/conversations'));
const { chat } = await import('./chat.svelte');
const { Draft } = await import('./draft.svelte');
const { keepText, readDraft, readWaiting } = await import('./drafts');
const { history } = await import('./history.svelte');
const { queue } = await import('./queue.svelte');
const { router } = await import('./router.svelte');

const shown = () => [chat.id, router.path, ...chat.path.map(({ id }) => id)];

async function turnTo(id: string | null) {
  router.go(id ? `/c/${id}` : '/');
  await chat.open(id);
}

beforeEach(async () => {
  Object.assign(globalThis, { localStorage: storage(), sessionStorage: storage() });
  api.open.mockImplementation(async (id) => tree(id) as never);
  history.recent = [];
  await turnTo(null);
  await turnTo('a');
  vi.clearAllMocks();
});
afterEach(() => void chat.open(null));

test.each([
  ['sent', api.ask, () => chat.send('words')],
  ['given again', api.regenerate, () => chat.regenerate('a-a')],
  ['edited', api.edit, () => chat.edit('a-q', 'words')],
  ['continued', api.carryOn, () => chat.carryOn('a-a')],
  ['chosen', api.change, () => chat.choose({ parameters: { temperature: 0 } })],
])('what is %s while another conversation is opened stays out of that one', async (_, call, act) => {
  const answer = later(call as never);
  const done = act();
  await turnTo('b');
  await answer.come(call === (api.change as unknown) ? { ...tree('a'), messages: undefined } : started('a-a'));
  await done;
  expect(shown()).toEqual(['b', '/c/b', 'b-q', 'b-a']);
  expect(chat.conversation?.title).toBe('B');
  expect(api.keepTree).not.toHaveBeenCalled();
  expect(history.recent.map(({ id }) => id)).toEqual(act.toString().includes('send') ? ['a'] : []);
});

test('who comes back to what was sent meanwhile finds it', async () => {
  const answer = later(api.ask);
  const done = chat.send('words');
  await turnTo('b');
  await turnTo('a');
  const { messages, ...rest } = tree('a');
  api.open.mockResolvedValueOnce({ ...rest, messages: [...messages, message('new-q', 'a-a'), message('new-a', 'new-q')] } as never);
  await answer.come(started('a-a'));
  await done;
  expect(shown()).toEqual(['a', '/c/a', 'a-q', 'a-a', 'new-q', 'new-a']);
});

test('a new conversation pulls nobody back, and its parent is not taken from another', async () => {
  await turnTo(null);
  const made = later(api.create);
  api.ask.mockResolvedValueOnce(started(null) as never);
  const onMade = vi.fn();
  const done = chat.send('words', 'id', onMade);
  await turnTo('b');
  await made.come({ ...tree('n'), messages: undefined });
  await done;
  expect(shown()).toEqual(['b', '/c/b', 'b-q', 'b-a']);
  expect(api.ask).toHaveBeenCalledWith('n', { id: 'id', parent_id: null, is_end: true, content: 'words' });
  expect(onMade).not.toHaveBeenCalled();

  // In the settings it goes on, and they stay.
  await turnTo(null);
  const again = later(api.create);
  api.ask.mockResolvedValueOnce(started(null) as never);
  const done2 = chat.send('words', 'id', onMade);
  router.go('/settings');
  await again.come({ ...tree('n'), messages: undefined });
  await done2;
  expect(shown()).toEqual(['n', '/settings', 'new-q', 'new-a']);
  expect(onMade).toHaveBeenCalledWith('n');
});

test('what failed in a temporary chat is asked once more', async () => {
  await turnTo(null);
  chat.isTemporary = true;
  api.askTemporarily.mockResolvedValue({ run: { id: 'r' } });
  await chat.send('words');
  const [question, failed] = chat.path;
  const again = await chat.regenerate(failed!.id);
  expect(api.regenerate).not.toHaveBeenCalled();
  expect(api.askTemporarily.mock.calls[1]![0]).toEqual([{ role: 'user', content: 'words' }]);
  expect(chat.path.map(({ id }) => id)).toEqual([question!.id, again]);
  expect(again).not.toBe(failed!.id);
});

test('a message that waited is taken off the list of its own conversation', async () => {
  queue.open('a');
  queue.add('first');
  queue.add('second');
  const answer = later(api.ask);
  const done = queue.sendNext();
  await turnTo('b');
  queue.open('b');
  queue.add('of b');
  await answer.come(started('a-a'));
  await done;
  expect(readWaiting('a').map(({ content }) => content)).toEqual(['second']);
  expect(queue.items.map(({ content }) => content)).toEqual(['of b']);
});

test('what is sent while a conversation is fetched waits for it, and for another try where that failed', async () => {
  const coming = later(api.open);
  const opened = expect(turnTo('b')).rejects.toThrow('no');
  queue.open('b');
  queue.add('words');
  await queue.sendNext();
  expect([queue.isDue, api.ask.mock.calls.length]).toEqual([true, 0]);
  await coming.fail();
  await opened;
  expect([chat.id, chat.place]).toEqual([null, 'b']);

  api.ask.mockResolvedValueOnce(started('b-a') as never);
  await queue.sendNext();
  expect(api.create).not.toHaveBeenCalled();
  expect(api.ask).toHaveBeenCalledWith('b', expect.objectContaining({ parent_id: 'b-a', content: 'words' }));
  expect([shown(), queue.items]).toEqual([['b', '/c/b', 'b-q', 'b-a', 'new-q', 'new-a'], []]);
});

test('every conversation keeps its draft while another is written to', async () => {
  keepText('b', 'the draft of b');
  const draft = new Draft();
  const type = (text: string) => ((draft.text = text), draft.keepText(false));
  draft.open('a');
  type('words');
  let answer = later(api.ask);
  let done = draft.send((content) => chat.send(content));
  expect(draft.isSending).toBe(true);
  draft.open('b');
  expect([draft.text, draft.isSending]).toEqual(['the draft of b', false]);
  const failed = expect(done).rejects.toThrow('no');
  await answer.fail();
  await failed;
  draft.open('a');
  expect([draft.text, draft.isSending]).toEqual(['words', false]);

  answer = later(api.ask);
  done = draft.send((content) => chat.send(content));
  draft.open('b');
  await answer.come(started('a-a'));
  await done;
  expect([draft.text, readDraft('a').text]).toEqual(['the draft of b', '']);

  // A new conversation takes its draft along, with what was typed meanwhile.
  draft.open(null);
  type('one');
  let go = () => {};
  done = draft.send(async (_, __, onMade) => {
    onMade('n');
    await new Promise<void>((resolve) => (go = resolve));
  });
  draft.open('n');
  expect([draft.text, draft.isSending, readDraft(null).text]).toEqual(['one', true, '']);
  type('one and two');
  go();
  await done;
  expect([draft.text, draft.isSending, readDraft('n').text]).toEqual(['one and two', false, 'one and two']);
});

test('while a conversation is fetched, what is typed is of its draft', async () => {
  const coming = later(api.open);
  const opened = turnTo('b');
  expect([chat.id, chat.place]).toEqual([null, 'b']);
  await coming.come(tree('b'));
  await opened;
  expect([chat.id, chat.place]).toEqual(['b', 'b']);
});

test('a temporary chat is edited in memory', async () => {
  await turnTo(null);
  chat.isTemporary = true;
  api.askTemporarily.mockReset().mockResolvedValue({ run: { id: 'r' } });
  await chat.send('words');
  const [question, answer] = chat.path;
  await chat.edit(answer!.id, 'better');
  expect(chat.path.map(({ content }) => content)).toEqual(['words', 'better']);
  await chat.edit(question!.id, 'other words');
  expect(api.askTemporarily.mock.calls.at(-1)![0]).toEqual([{ role: 'user', content: 'other words' }]);
  expect(chat.children.get(null)).toHaveLength(2);
  expect(api.edit).not.toHaveBeenCalled();
});
