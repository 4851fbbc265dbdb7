/** A conversation as a tree: every message names the one before it. Pure functions; later ids are later messages. */

export interface Node {
  id: string;
  parent_id: string | null;
}

/** From the first message to `leaf`, both included; empty where `leaf` is not there. */
export function pathTo<T extends Node>(nodes: ReadonlyMap<string, T>, leaf: string | null): T[] {
  const path: T[] = [];
  for (let node = leaf === null ? undefined : nodes.get(leaf); node && path.length <= nodes.size; ) {
    path.push(node);
    node = node.parent_id === null ? undefined : nodes.get(node.parent_id);
  }
  return path.reverse();
}

/** The ids of the messages below each message, the oldest first; those below null begin the conversation. */
export function childrenOf<T extends Node>(nodes: ReadonlyMap<string, T>): Map<string | null, string[]> {
  const children = new Map<string | null, string[]>();
  for (const { id, parent_id } of nodes.values()) {
    const known = children.get(parent_id);
    if (known) known.push(id);
    else children.set(parent_id, [id]);
  }
  for (const ids of children.values()) ids.sort();
  return children;
}

/** The end of the branch that was last written below `id`: what to show when somebody turns to it. */
export function latestLeaf<T extends Node>(nodes: ReadonlyMap<string, T>, id: string): string {
  const parents = new Set([...nodes.values()].map(({ parent_id }) => parent_id));
  const leaves = [...nodes.keys()].filter((leaf) => !parents.has(leaf)).sort();
  return leaves.findLast((leaf) => pathTo(nodes, leaf).some((node) => node.id === id)) ?? id;
}
