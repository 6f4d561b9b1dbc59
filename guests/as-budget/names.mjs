// Names that are no words of the language: what exports.ts exports gets the names that the contract gives it.

import { Transform } from 'assemblyscript/transform';

const pacing = 'tidegate:controller/pacing@0.1.0#';
const names = {
  on_update: `${pacing}on-update`,
  enter: `${pacing}[method]iteration.enter`,
  exit: `${pacing}[method]iteration.exit`,
  drop: `${pacing}[dtor]iteration`,
};

export default class Names extends Transform {
  afterCompile(module) {
    for (const [name, inContract] of Object.entries(names)) {
      module.addFunctionExport(`exports/${name}`, inContract);
      module.removeExport(name);
    }
  }
}
