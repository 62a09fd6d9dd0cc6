/* SPDX-License-Identifier: MIT */
/*
 * Walks the sampled top of a stack from frame to frame, by rules that Python has read from the files of
 * the code, up to the innermost frame of an interpreter. Nothing is guessed: without a rule, or beyond
 * the sampled words, the walk ends.
 */
#include <errno.h>
#include <string.h>

#include "shim.h"

enum { BX, BP, SP, IP, R12, R13, R14, R15, WORDS, STACK }; /* a row of a stack */
enum { KIND, BASE, OFFSET, SAVED, HOME = 9 };		    /* a rule */
enum { FOUND, ABOUT, RETURN, VALUES };			    /* a row of the result */

#define MOST_FRAMES 64

static const int32_t *rule_of(const struct ps_frame_rules *rules, uint64_t address)
{
	uint64_t mask = rules->size - 1, at = (address * 0x9e3779b97f4a7c15ull >> 20) & mask;

	for (; rules->key[at]; at = (at + 1) & mask)
		if (rules->key[at] == address)
			return rules->rule + at * PS_RULE;
	return NULL;
}

/* Reads a word of the stack; 0: it was not sampled. */
static int word(const uint64_t *row, uint64_t address, uint64_t *value)
{
	uint64_t at = (address - row[SP]) / 8;

	if (address < row[SP] || address % 8 || at >= row[WORDS])
		return 0;
	*value = row[STACK + at];
	return 1;
}

static void interpreter(const uint64_t *row, const uint64_t *registers, uint64_t top, const int32_t *rule,
			uint64_t *out)
{
	out[FOUND] = PS_WALK_FOUND;
	for (int i = 0; i < PS_HOMES; i++) {
		int32_t home = rule[HOME + i];

		if (home > 0)
			out[VALUES + i] = registers[home - 1];
		else if (home < 0)
			word(row, top + (uint64_t)(int64_t)home, &out[VALUES + i]);
	}
	word(row, top - 8, &out[RETURN]);
}

static void walk(const uint64_t *row, const struct ps_frame_rules *rules, uint64_t *out)
{
	static const int saved[] = {BX, BP, R12, R13, R14, R15};
	uint64_t registers[8], at = row[IP];

	memcpy(registers, row, sizeof(registers));
	for (int frame = 0; frame < MOST_FRAMES; frame++) {
		const int32_t *rule = rule_of(rules, at);
		uint64_t top;

		out[ABOUT] = at;
		if (!rule)
			out[FOUND] = PS_WALK_NO_RULE;
		if (!rule || rule[KIND] == PS_RULE_END)
			return;
		top = registers[rule[BASE]] + (uint64_t)(int64_t)rule[OFFSET];
		if (top <= registers[SP])
			return;
		if (rule[KIND] == PS_RULE_INTERPRETER) {
			interpreter(row, registers, top, rule, out);
			return;
		}
		for (int i = 0; i < 6; i++)
			if (rule[SAVED + i] &&
			    !word(row, top + (uint64_t)(int64_t)rule[SAVED + i], &registers[saved[i]]))
				return;
		if (!word(row, top - 8, &registers[IP]))
			return;
		registers[SP] = top;
		at = registers[IP] - 1; /* a call may be the last instruction of its function */
	}
}

int64_t ps_stacks_walk(const struct ps_faults *samples, uint32_t pid, const struct ps_frame_rules *rules,
		       uint64_t *out)
{
	int64_t missing = 0;

	if (!samples->stack || !rules->size || rules->size & (rules->size - 1))
		return -EINVAL;
	memset(out, 0, (size_t)samples->length * PS_WALK * sizeof(*out));
	for (int64_t i = 0; i < samples->length; i++) {
		const uint64_t *row = samples->stack + i * PS_STACK_ROW;

		if (samples->thread[i] >> 32 != pid || !row[WORDS])
			continue;
		walk(row, rules, out + i * PS_WALK);
		missing += out[i * PS_WALK] == PS_WALK_NO_RULE;
	}
	return missing;
}
