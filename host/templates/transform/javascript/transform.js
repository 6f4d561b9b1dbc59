// What becomes of a row: an e-mail address is trimmed and put in small letters.

// The row has the columns of `read`, in their order; what is written are those of `write`.
function one([value, ...others]) {
  if (value === undefined || others.length > 0) return fail('`read` is to name one column of texts');
  if (value.tag === 'null') return { tag: 'keep' };
  if (value.tag !== 'text') return fail('`read` is to name one column of texts');
  const address = value.val.trim();
  if (!address.includes('@')) return fail('an address without an @');
  return { tag: 'write', val: [{ tag: 'text', val: address.toLowerCase() }] };
}

const fail = (reason) => ({ tag: 'fail', val: reason });

export const transformer = {
  transform: (rows) => rows.map(one),
};
