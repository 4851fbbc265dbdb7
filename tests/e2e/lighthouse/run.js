// Prints Lighthouse's report of a page as JSON: node run.js URL, with COOKIE and CHROME_PATH in the environment.
// https://github.com/GoogleChrome/lighthouse. Nothing is throttled: what is measured is the page, not a model of a phone.
import { launch } from 'chrome-launcher';
import lighthouse, { desktopConfig } from 'lighthouse';

const chrome = await launch({ chromeFlags: ['--headless=new', '--no-sandbox', '--disable-gpu'] });
try {
  const { lhr } = await lighthouse(
    process.argv[2],
    {
      port: chrome.port,
      extraHeaders: { Cookie: process.env.COOKIE },
      onlyCategories: ['performance', 'accessibility', 'best-practices'],
      throttlingMethod: 'provided',
      disableFullPageScreenshot: true,
      maxWaitForLoad: 20_000,
      logLevel: 'silent',
    },
    desktopConfig,
  );
  process.stdout.write(JSON.stringify(lhr));
} finally {
  chrome.kill();
}
