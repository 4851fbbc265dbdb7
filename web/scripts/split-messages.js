// Paraglide's index of messages imports every language at once. In its place come functions of the same names that look
// into the one language which was loaded (src/lib/locale/catalog.ts), so that the others are never fetched.

const DECLARED = /^(?:export )?const (\w+) = /gm;
const RENAMED = /^export \{ \w+ as "[^"]+" \}$/gm;

/** @returns {import('vite').Plugin} */
export function splitMessages() {
  return {
    name: 'fireside:split-messages',
    transform(code, id) {
      if (!id.endsWith('/paraglide/messages/_index.js')) return null;
      const names = [...code.matchAll(DECLARED)].map(([, name]) => name);
      const renamed = [...code.matchAll(RENAMED)].map(([line]) => line);
      const isOwn = new Set(names.filter((name) => code.includes(`\nexport const ${name} =`)));
      return {
        code: [
          "import { catalog } from '/src/lib/locale/catalog.ts';",
          ...names.map((name) => `${isOwn.has(name) ? 'export ' : ''}const ${name} = (inputs) => catalog.${name}(inputs);`),
          ...renamed,
        ].join('\n'),
        map: null,
      };
    },
  };
}
