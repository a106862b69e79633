// Loaded before Azurite.
const http = require("http");
const path = require("path");

// Every ten minutes it collects its garbage, rebuilds an index for each extent meanwhile, and answers nobody for minutes: a test
// that meets that sees a service that hangs. A day is longer than any test.
const main = require("fs").realpathSync(process.argv[1]);
const constants = require(path.join(path.dirname(main), "utils", "constants"));
if (!(constants.DEFAULT_GC_INTERVAL_MS > 0)) throw new Error("this Azurite has no DEFAULT_GC_INTERVAL_MS");
constants.DEFAULT_GC_INTERVAL_MS = 24 * 60 * 60 * 1000;

// It closes a connection that was idle for five seconds, also if a request has just arrived, and `azurite-blob` does not read
// its own option for that (3.35.0 looks for `keepAliveTimeout` where the option is `blobKeepAliveTimeout`). Node closes one that has had
// no request for a minute. Here none is closed for waiting.
const create = http.createServer;
http.createServer = (...given) => {
    const server = create(...given);
    for (const wait of ["keepAliveTimeout", "headersTimeout", "requestTimeout"]) {
        if (!(server[wait] > 0)) throw new Error(`this Node.js has no ${wait}`);
        Object.defineProperty(server, wait, { get: () => 0, set: () => {} });
    }
    return server;
};
