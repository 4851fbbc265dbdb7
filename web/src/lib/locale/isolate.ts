/** A name as it stands in a sentence: whatever its direction, it leaves the sentence's as it is. */
export const isolate = (name: string): string => `\u2068${name}\u2069`;
