import { expect, test } from 'vitest';
import { childrenOf, latestLeaf, pathTo, type Node } from './tree';

//  1 ─ 2 ─ 3 ─ 4      7 answers 1 once more, 5 edits 3, 8 begins anew
//  │   └── 5 ─ 6
//  └── 7
const NODES = new Map<string, Node>(
  Object.entries({ 1: null, 2: '1', 3: '2', 4: '3', 5: '2', 6: '5', 7: '1', 8: null }).map(([id, parent_id]) => [id, { id, parent_id }]),
);
const ids = (nodes: Node[]) => nodes.map(({ id }) => id).join('');

test('a path leads from the first message to the leaf', () => {
  expect(ids(pathTo(NODES, '6'))).toBe('1256');
  expect(ids(pathTo(NODES, '8'))).toBe('8');
  expect(pathTo(NODES, null)).toEqual([]);
  expect(pathTo(NODES, 'gone')).toEqual([]);
});

test('a circle in damaged data ends', () => {
  const circle = new Map<string, Node>([['a', { id: 'a', parent_id: 'b' }], ['b', { id: 'b', parent_id: 'a' }]]);
  expect(pathTo(circle, 'a').length).toBeLessThan(4);
});

test('siblings stand in the order in which they were written', () => {
  const children = childrenOf(new Map([...NODES].reverse()));
  expect(children.get(null)).toEqual(['1', '8']);
  expect(children.get('2')).toEqual(['3', '5']);
  expect(children.get('4')).toBeUndefined();
});

test('turning to a branch shows what was last written on it', () => {
  expect(latestLeaf(NODES, '1')).toBe('7');
  expect(latestLeaf(NODES, '2')).toBe('6');
  expect(latestLeaf(NODES, '3')).toBe('4');
  expect(latestLeaf(NODES, '8')).toBe('8');
});
