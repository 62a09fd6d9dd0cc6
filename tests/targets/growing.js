// SPDX-License-Identifier: MIT
// Keeps 64 KiB more of small objects every 20 ms, until its input ends.
const kept = [];
let over = false;

process.stdin.on('data', () => { over = true; });
console.log('ready');
const timer = setInterval(() => {
	for (let i = 0; i < 200; i++)
		kept.push({a: i, b: 'x' + kept.length, c: [i, i + 1, i + 2, i + 3]});
	if (over) {
		clearInterval(timer);
		console.log(0);
		process.exit(0);
	}
}, 20);
