/**
 * What runs in the sandboxed frames: diagrams, previews and images of other sites. Built by itself, so that the app and
 * the frames share no chunk, and nothing of Mermaid comes near the first page.
 */
import { defineConfig, type Plugin } from 'vite';

/** Of Mermaid: kinds of diagrams that hardly anybody asks for, and formulas within labels. A third of its size. */
const LEFT_OUT = /(?:^katex$|(?:architecture|wardley|cynefin|ishikawa|venn|swimlanes|railroad|ebnf|abnf|peg)(?:Diagram)?-\w+\.mjs$)/;

const leaveOut: Plugin = {
  name: 'leave-out',
  enforce: 'pre',
  resolveId: (id) => (LEFT_OUT.test(id) ? '\0left-out' : null),
  load: (id) => (id === '\0left-out' ? 'throw new Error("Fireside does not draw this kind.");\nexport const diagram = null;\nexport default null;' : null),
};

export default defineConfig({
  plugins: [leaveOut],
  publicDir: false,
  build: {
    outDir: '../src/fireside/web/dist',
    emptyOutDir: false,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: false,
    chunkSizeWarningLimit: 700,
    rolldownOptions: { input: ['assets/frame.html', 'assets/image.html'] },
  },
});
