// What driver.cpp asks of fibres.cpp.
#pragma once

#include "emulator.h"

#include <string>

namespace emulator {

enum Order { forward, backward, shuffled };

// The order in which blocks, warps and lanes run, and the operating system's threads
// that they run on.
extern Order order;
extern int workers;

struct Launch {
	const Kernel *kernel;
	dim3 grid, block;
	unsigned dynamic; // shared memory, in bytes
	void *const *arguments;
};

// run runs all blocks. What goes wrong in a kernel ends the program with a message.
void run(const Launch &);

const Kernel *find(const char *name);

// describe says where in the device's memory p is (driver.cpp).
std::string describe(const void *p);

const unsigned max_dynamic = 227 << 10;
const size_t page = 4096;

} // namespace emulator
