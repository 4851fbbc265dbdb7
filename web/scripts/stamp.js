// Writes beside the built app which sources it was built from, so that a test without Node can tell that it is current.
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';

const ROOTS = ['assets', 'index.html', 'messages', 'package-lock.json', 'package.json', 'project.inlang/settings.json', 'public', 'scripts', 'src', 'svelte.config.js', 'vite.config.ts', 'vite.frame.config.ts'];

/** Every file at or below `path`, without specs and what Paraglide compiles out of `messages`. */
function files(path) {
  if (statSync(path).isFile()) return path.endsWith('.spec.ts') ? [] : [path];
  return readdirSync(path).flatMap((name) => (name === 'paraglide' ? [] : files(`${path}/${name}`)));
}

const hash = createHash('sha256');
for (const path of ROOTS.flatMap(files).sort()) hash.update(`${path}\0`).update(readFileSync(path)).update('\0');
writeFileSync('../src/fireside/web/dist/sources.sha256', `${hash.digest('hex')}\n`);
