/** Finding by the letters that somebody remembers, in their order. */

/** How well `words` fits `query`; higher is better, null not at all. Letters at beginnings of words count most. */
export function fit(query: string, words: string): number | null {
  const wanted = plain(query).replaceAll(/\s+/g, '');
  const text = plain(words);
  let score = 0;
  let at = -1;
  for (const letter of wanted) {
    const next = nextOf(text, letter, at);
    if (next < 0) return null;
    score += next === at + 1 ? 2 : isBeginning(text, next) ? 3 : -1;
    at = next;
  }
  return score - text.length / 100;
}

/** Those that fit, the best first. */
export function filter<T>(items: readonly T[], query: string, words: (item: T) => string): T[] {
  if (!query.trim()) return [...items];
  return items
    .map((item) => ({ item, score: fit(query, words(item)) }))
    .filter((found): found is { item: T; score: number } => found.score !== null && found.score >= query.trim().length)
    .sort((a, b) => b.score - a.score)
    .map(({ item }) => item);
}

/** The letter that continues a run, or else begins a word, or else the first there is. */
function nextOf(text: string, letter: string, at: number): number {
  if (text[at + 1] === letter) return at + 1;
  for (let next = text.indexOf(letter, at + 1); next >= 0; next = text.indexOf(letter, next + 1)) if (isBeginning(text, next)) return next;
  return text.indexOf(letter, at + 1);
}

const isBeginning = (text: string, at: number) => at === 0 || /[^\p{L}\p{N}]/u.test(text[at - 1]!);

/** Without case and accents. */
const plain = (text: string) => text.normalize('NFD').replaceAll(/\p{M}/gu, '').toLowerCase();
