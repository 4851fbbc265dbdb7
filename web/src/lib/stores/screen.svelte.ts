/** What commands from elsewhere ask of the conversation's screen. */

class Screen {
  areParametersOpen = $state(false);
  /** Where to scroll; the screen sets it back. */
  goal = $state<'first' | 'latest' | null>(null);
  /** The message that is to be edited; it sets this back. */
  edited = $state<string | null>(null);
}

export const screen = new Screen();
