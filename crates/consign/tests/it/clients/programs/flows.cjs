// What the programs in JavaScript share: flows that are run one by one and told of on standard output, one line of JSON
// each, and a receiver of webhooks.
'use strict';
const http = require('node:http');
const https = require('node:https');

const settings = JSON.parse(process.argv[2]);

/** A flow that this client cannot do. */
class Excluded extends Error {}
/** Shown, but not as the client's documentation has it. */
class Otherwise {
  constructor(note) { this.note = note; }
}

function tell(line) { process.stdout.write(JSON.stringify(line) + '\n'); }

/** Runs each flow to its end, also after one that failed. `only` names one, for trying. */
async function run(flows) {
  for (const [flow, body] of Object.entries(flows)) {
    if (settings.only && settings.only !== flow) continue;
    let timer;
    try {
      const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('no end after 60 s')), 60_000); });
      const ended = await Promise.race([body(), late]);
      tell(ended instanceof Otherwise ? { flow, cell: { otherwise: ended.note } } : { flow, cell: 'shown' });
    } catch (error) {
      const is = error instanceof Excluded;
      tell(is ? { flow, cell: { excluded: error.message } } : { flow, failed: `${error.stack} ${error.cause ?? ''}` });
    } finally {
      clearTimeout(timer);
    }
  }
  process.exit(0);
}

/** Fetches with the function that the command-line client uses, which knows one scheme only. */
function download(url) {
  return new Promise((resolve, reject) => {
    const get = url.startsWith('https:') ? https.get : http.get;
    get(url, response => {
      const chunks = [];
      response.on('data', chunk => chunks.push(chunk));
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks) }));
      response.on('error', reject);
    }).on('error', reject);
  });
}

/** A server on loopback that keeps what is posted to it, and has nothing to give. */
async function receiver() {
  const kept = [];
  const waiting = [];
  const server = http.createServer((request, response) => {
    const chunks = [];
    request.on('data', chunk => chunks.push(chunk));
    request.on('end', () => {
      response.statusCode = request.method === 'POST' ? 200 : 404;
      response.end();
      if (request.method !== 'POST') return;
      kept.push({ headers: request.headers, body: Buffer.concat(chunks).toString('utf-8') });
      for (const look of waiting.splice(0)) look();
    });
  });
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/hook`,
    /** The delivery of this event about this job. */
    async delivery(event, job) {
      for (;;) {
        const found = kept.find(({ body }) => {
          const { event: name, job: about } = JSON.parse(body);
          return name === event && about.id === job;
        });
        if (found) return found;
        await new Promise(resolve => waiting.push(resolve));
      }
    },
    close() { server.close(); },
  };
}

module.exports = { settings, run, download, receiver, Excluded, Otherwise };
