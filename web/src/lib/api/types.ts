/** The server's words for what the app shows, out of `/openapi.json`; `npm run types` makes `schema.d.ts` of it. */

import type { components } from './schema';

type Schemas = components['schemas'];

export type Message = Schemas['MessageOut'];
export type MessageStatus = Message['status'];
export type Parameters = Partial<Schemas['Parameters']>;
export type Conversation = Omit<Schemas['ConversationOut'], 'parameters'> & { parameters: Parameters; hit?: Schemas['Hit'] | null };
export type Tree = Conversation & Pick<Schemas['ConversationTree'], 'messages'>;
export type Started = Schemas['Started'];
export type RunEvent = Schemas['RunEventOut'];
export type Project = Schemas['ProjectOut'];
export type Prompt = Schemas['PromptOut'];
export type Model = Schemas['ModelOut'];

export type Feedback = Schemas['FeedbackOut'];
export type FeedbackItem = Schemas['FeedbackItem'];
export type Reason = NonNullable<Schemas['Rating']['reasons']>[number];
export type Vote = Schemas['CastVote']['verdict'];
export type Consent = Schemas['ConsentOut'];
export type Comparison = Schemas['ComparisonOut'];
export type Leaderboard = Schemas['Leaderboard'];

export type User = Schemas['UserView'];
export type SessionState = Schemas['SessionView'];
export type BrowserSession = Schemas['SessionEntry'];
export type ApiKey = Schemas['KeyView'];
export type CreatedKey = Schemas['CreatedKey'];

export type Account = Schemas['AccountView'];
export type Role = Account['role'];
export type Invitation = Schemas['InvitationView'];
export type OneTimeLink = Schemas['LinkView'];
export type AuditEntry = Schemas['AuditView'];
export type ServedModel = Schemas['ServedModelView'];
export type ServedModels = Schemas['ServedModelsView'];
export type Health = Schemas['HealthView'];
export type ServerSettings = Schemas['SettingsView'];
export type Backup = Schemas['BackupView'];
export type Backups = Schemas['BackupsView'];

export type Share = Schemas['ShareOut'];
export type ShareWish = Partial<Schemas['ShareWish']>;
export type Import = Schemas['ImportOut'];
export type SkipReason = Schemas['Reason'];

export type ConversationChange = Partial<Omit<Schemas['ConversationChange'], 'parameters'>> & { parameters?: Parameters };
export type NewConversation = Partial<Omit<Schemas['NewConversation'], 'parameters'>> & { parameters?: Parameters };
export type Answering = { model?: string; parameters?: Parameters };
export type ProfileChange = Partial<Schemas['ProfileChange']>;
export type NewAccount = Schemas['SignIn'] & { name: string; token?: string };
