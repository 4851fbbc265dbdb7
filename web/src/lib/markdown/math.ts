/** LaTeX to MathML, which browsers lay out themselves. */

import temml from 'temml';

// Our Content-Security-Policy allows no style in attributes; Temml's are of padding only, and formulas read well without.
const STYLE = / style="[^"]*"/g;

export function math(source: string, display: boolean): string {
  return temml.renderToString(source, { displayMode: display, throwOnError: false, trust: false, maxExpand: 200 }).replace(STYLE, '');
}
