/** What the app and its sandboxed frames say to each other. A frame may be in the hands of what it shows. */

export type Order =
  /** Mermaid, in the colours of the page around it. */
  | { kind: 'diagram'; source: string; isDark: boolean; colours: Colours }
  /** HTML or SVG, none of whose scripts run. */
  | { kind: 'page'; source: string; isDark: boolean }
  /** The address of an image, which is asked for now. */
  | { kind: 'image'; source: string; alt: string; isDark: boolean };

export interface Colours {
  text: string;
  ground: string;
  line: string;
  fill: string;
}

/** Sizes are in pixels; no height where the page around decides. */
export type Reply = { kind: 'ready' } | { kind: 'shown'; width: number; height: number | null } | { kind: 'failed'; message: string };

const MAX_MESSAGE = 200; // characters

/** What a frame said, made harmless: numbers within bounds, a short line, or null for anything else. */
export function readReply(data: unknown, maxHeight: number): Reply | null {
  const { kind, width, height, message } = (data ?? {}) as Record<string, unknown>;
  if (kind === 'ready') return { kind };
  if (kind === 'failed') return { kind, message: String(message ?? '').split('\n')[0]!.replace(/[:\s]+$/, '').slice(0, MAX_MESSAGE) };
  if (kind !== 'shown' || !Number.isFinite(width)) return null;
  const bounded = (value: unknown, most: number) => Math.round(Math.min(Math.max(value as number, 16), most));
  return { kind, width: bounded(width, 4096), height: Number.isFinite(height) ? bounded(height, maxHeight) : null };
}
