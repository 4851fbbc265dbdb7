// A script of its own beside the app's bundle: without imports, as text.
import { build } from 'vite';

/** @param {string} entry @param {Record<string, string>} define Names in it that stand for these expressions. */
export async function bundle(entry, define) {
  const [{ output }] = await build({
    configFile: false,
    logLevel: 'silent',
    define,
    build: { write: false, copyPublicDir: false, target: 'es2022', modulePreload: false, lib: { entry, formats: ['iife'], name: 'fireside' } },
  });
  return output[0].code;
}

/** The languages by the files that their words were built into. */
export function catalogFiles(output) {
  const files = {};
  for (const { type, facadeModuleId, fileName } of Object.values(output)) {
    const locale = type === 'chunk' && /\/paraglide\/messages\/(\w+)\.js$/.exec(facadeModuleId ?? '')?.[1];
    if (locale) files[locale] = `/${fileName}`;
  }
  return files;
}
