// SPDX-License-Identifier: MIT

// Keeps 64 KiB more of small objects every 20 ms, until its input ends.
package main

import (
	"fmt"
	"os"
	"time"
)

func main() {
	var kept [][]byte
	ended := make(chan bool)

	go func() {
		os.Stdin.Read(make([]byte, 1))
		ended <- true
	}()
	fmt.Println("ready")
	for {
		select {
		case <-ended:
			if len(kept) >= 0 {
				fmt.Println(0)
			}
			return
		case <-time.After(20 * time.Millisecond):
		}
		for i := 0; i < 64; i++ {
			more := make([]byte, 1024)

			for at := range more {
				more[at] = 7
			}
			kept = append(kept, more)
		}
	}
}
