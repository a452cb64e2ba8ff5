export function prepareDuplicates() {}
export function drawDuplicates() {}
