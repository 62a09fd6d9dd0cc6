// SPDX-License-Identifier: MIT

// Works in several goroutines, allocates all the time, and answers each line with its checks.
package main

import (
	"bufio"
	"fmt"
	"os"
	"sync/atomic"
)

var rounds, faults atomic.Int64

func work(seed int64) {
	kept := make([]int64, 1<<16)
	for turn := int64(0); ; turn++ {
		fresh := make([]int64, 1<<10)
		sum := int64(0)
		for i := range fresh {
			fresh[i] = seed + turn + int64(i)
		}
		for _, value := range fresh {
			sum += value
		}
		kept[turn&0xffff] = turn
		if sum != 1024*(seed+turn)+1023*512 || kept[turn&0xffff] != turn {
			faults.Add(1)
		}
		rounds.Add(1)
	}
}

func main() {
	for i := int64(0); i < 4; i++ {
		go work(i)
	}
	input := bufio.NewScanner(os.Stdin)
	for ok := true; ok; ok = input.Scan() {
		fmt.Println(rounds.Load(), faults.Load())
	}
}
