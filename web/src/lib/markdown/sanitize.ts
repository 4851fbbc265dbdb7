/** The last word on what reaches the DOM: only these elements and attributes, whatever was rendered. */

import DOMPurify from 'dompurify';

const HTML =
  'a blockquote br button code del div em h1 h2 h3 h4 h5 h6 hr img input ins kbd li mark ol p pre s small span strong sub sup table tbody td th thead tr u ul';
const MATH =
  'annotation math menclose merror mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover semantics';
const ADDRESSES = ['href', 'src'];
const PLAIN =
  'align alt checked class data-copy data-frame data-image data-picture dir disabled hidden rel start tabindex target type ' +
  'accent columnalign columnlines columnspacing depth display displaystyle encoding fence form height linebreak linethickness lspace mathcolor mathsize mathvariant maxsize minsize movablelimits notation rowalign rowlines rowspacing rspace scriptlevel separator stretchy symmetric voffset width xmlns';

const config = {
  IN_PLACE: true,
  ALLOWED_TAGS: `${HTML} ${MATH}`.split(' '),
  ALLOWED_ATTR: [...ADDRESSES, ...PLAIN.split(' ')],
  ADD_URI_SAFE_ATTR: PLAIN.split(' '),
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/(?:png|jpeg|gif|webp|avif);base64,)/i,
};

/** One document for all of it: a parser's own for each rendering would be the heaviest thing in the page. */
let inert: Document | undefined;

/** What is left of it, in a document that runs no script and fetches no image until it is put into the page. */
export function sanitize(html: string): DocumentFragment {
  inert ??= document.implementation.createHTMLDocument('');
  const root = inert.createElement('div');
  root.innerHTML = html;
  DOMPurify.sanitize(root, config);
  for (const parent of [root, ...root.querySelectorAll('blockquote, div, ol, table, tbody, thead, tr, ul')]) dropBlanks(parent);
  const fragment = inert.createDocumentFragment();
  fragment.append(...root.childNodes);
  return fragment;
}

/** The line breaks between blocks, list items, rows and cells: nobody sees them, and they are a third of a text's nodes. */
function dropBlanks(parent: Element): void {
  for (const child of [...parent.childNodes]) if (child.nodeType === Node.TEXT_NODE && !child.nodeValue!.trim()) child.remove();
}
