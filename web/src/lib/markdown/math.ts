/** LaTeX to MathML, which browsers lay out themselves. */

import temml from 'temml';

export function math(source: string, display: boolean): string {
  return temml.renderToString(source, { displayMode: display, throwOnError: false, trust: false, maxExpand: 200 });
}
