/** A name within a sentence: whichever way it runs, the sentence keeps its own direction (U+2068, U+2069). */
export const isolate = (name: string): string => `\u2068${name}\u2069`;
