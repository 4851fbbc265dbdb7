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
  ALLOWED_TAGS: `${HTML} ${MATH}`.split(' '),
  ALLOWED_ATTR: [...ADDRESSES, ...PLAIN.split(' ')],
  ADD_URI_SAFE_ATTR: PLAIN.split(' '),
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/(?:png|jpeg|gif|webp|avif);base64,)/i,
};

export function sanitize(html: string): string {
  return DOMPurify.sanitize(html, config);
}
