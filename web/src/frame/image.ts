/** Shows one image of another site. Its frame is the only place in the app that can ask other sites for anything. */

import { listen } from './talk';

listen((order) => {
  const image = new Image();
  image.referrerPolicy = 'no-referrer';
  image.alt = order.kind === 'image' ? order.alt : '';
  image.style.cssText = 'display: block; max-width: 100%; max-height: 720px;';
  document.body.style.margin = '0';
  document.body.replaceChildren(image);
  return new Promise((resolve, reject) => {
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error(''));
    image.src = order.source;
  });
});
