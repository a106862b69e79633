// Loaded before Azurite. Every ten minutes it collects its garbage, rebuilds an index for each extent meanwhile, and
// answers nobody for minutes: a test that meets that sees a service that hangs. A day is longer than any test.
const path = require("path");
const main = require("fs").realpathSync(process.argv[1]);
const constants = require(path.join(path.dirname(main), "utils", "constants"));
if (!(constants.DEFAULT_GC_INTERVAL_MS > 0)) throw new Error("this Azurite has no DEFAULT_GC_INTERVAL_MS");
constants.DEFAULT_GC_INTERVAL_MS = 24 * 60 * 60 * 1000;
