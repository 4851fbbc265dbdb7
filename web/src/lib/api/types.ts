/** What the server takes and gives, as the app uses it. */

export type MessageStatus = 'running' | 'complete' | 'stopped' | 'interrupted' | 'failed';

export interface Parameters {
  temperature?: number | null;
  top_p?: number | null;
  max_tokens?: number | null;
  seed?: number | null;
  system?: string | null;
}

export interface Message {
  id: string;
  created_at: string;
  parent_id: string | null;
  role: 'user' | 'assistant';
  content: string;
  reasoning: string | null;
  status: MessageStatus;
  error: { message: string; code: string | null } | null;
  model: string | null;
  finish_reason: string | null;
  run_id: string | null;
}

export interface Conversation {
  id: string;
  created_at: string;
  updated_at: string;
  project_id: string | null;
  title: string;
  model: string | null;
  parameters: Parameters;
  current_leaf_id: string | null;
  pinned_at: string | null;
  archived_at: string | null;
  hit?: { message_id: string | null; snippet: string } | null;
}

export interface Tree extends Conversation {
  messages: Message[];
}

export interface Started {
  message: Message | null;
  answer: Message | null;
  run: { id: string; conversation_id: string | null } | null;
}

export type RunEvent =
  | { type: 'text'; text: string }
  | { type: 'reasoning'; reasoning: string }
  | { type: 'title'; title: string }
  | { type: 'usage' }
  | { type: 'context'; dropped?: number }
  | { type: 'done'; status: MessageStatus; finish_reason?: string | null; error?: Message['error'] };

export interface Project {
  id: string;
  name: string;
  instructions: string;
}

export interface Prompt {
  id: string;
  name: string;
  content: string;
}

export interface Model {
  id: string;
  is_default: boolean;
  context_length: number | null;
}

export interface User {
  id: string;
  email: string;
  name: string;
  role: 'admin' | 'member' | 'guest';
  locale: string | null;
  instructions: string;
  preferences: Record<string, unknown>;
}

export interface SessionState {
  user: User | null;
  needs_setup: boolean;
  sign_up: 'invitation' | 'open';
  version: string | null;
}

export interface BrowserSession {
  id: string;
  created_at: string;
  last_seen_at: string;
  user_agent: string;
  address: string;
  is_current?: boolean;
}

export interface ApiKey {
  id: string;
  created_at: string;
  name: string;
  prefix: string;
  expires_at: string | null;
  last_used_at: string | null;
  revoked_at: string | null;
}
