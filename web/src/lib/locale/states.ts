/** How a model is, in the person's language. */

import * as m from '../../paraglide/messages.js';
import type { ServedModel } from '../api/types';

const STATES: Record<ServedModel['state'], () => string> = {
  available: m.model_state_available,
  damaged: m.model_state_damaged,
  starting: m.model_state_starting,
  ready: m.model_state_ready,
  restarting: m.model_state_restarting,
  failed: m.model_state_failed,
  closed: m.model_state_closed,
  unloading: m.model_state_unloading,
};

/** As the server calls it, where it is a state that is not known here. */
export const modelState = (state: string): string => STATES[state as ServedModel['state']]?.() ?? state;
