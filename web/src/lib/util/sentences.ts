/** What to read aloud of a text that is being written: whole sentences, each once. */

const END = /[.!?…:;]["')\]]*\s|[。！？]|\n\n/g;

/** How far `text` consists of whole sentences, from `from` on. */
export function sentenceEnd(text: string, from: number): number {
  END.lastIndex = from;
  let end = from;
  for (let match = END.exec(text); match; match = END.exec(text)) end = END.lastIndex;
  return end;
}
