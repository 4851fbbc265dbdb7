/** What people may do, and its names. */

import * as m from '../../paraglide/messages.js';
import type { Role } from '../../lib/api/types';

export const ROLES: Role[] = ['admin', 'member', 'guest'];

export const roleName = (role: Role): string => ({ admin: m.role_admin, member: m.role_member, guest: m.role_guest })[role]();
