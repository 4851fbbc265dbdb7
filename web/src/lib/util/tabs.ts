/** The other tabs of this browser, which are told that a conversation goes on here. */
export const tabs = new BroadcastChannel('fireside:conversations');
