// Prints the addresses of functions, one "ADDRESS NAME" per line, and waits.
package main

import (
	"fmt"
	"os"
	"reflect"
)

type room struct{ value int }

//go:noinline
func (r *room) enter() { r.value++ }

//go:noinline
func leave() { os.Getpid() }

func main() {
	fmt.Printf("%#x main.leave\n", reflect.ValueOf(leave).Pointer())
	fmt.Printf("%#x main.(*room).enter\n\n", reflect.ValueOf((*room).enter).Pointer())
	os.Stdin.Read(make([]byte, 1))
}
