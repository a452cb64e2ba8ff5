export function prepareIndexing() {}
export function drawIndexing() {}
