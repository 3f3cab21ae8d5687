package netio

// Limits of a chunked body, beside that of its content.
const (
	chunkDigits = 16      // digits of a size, leading zeros included: what fits into 64 bits
	chunkExtMax = 4 << 10 // bytes of extensions in a whole body; honest clients send none
	trailerMax  = 4 << 10 // bytes of the trailer section
)

// A chunked reads one chunked body (RFC 9112 7.1), a byte of it after the
// other, so that how it arrives changes nothing. The zero chunked is ready.
//
//	chunk   = size *( ";" name [ "=" value ] ) CRLF content CRLF
//	body    = *chunk, a chunk of size 0 without content, trailers, CRLF
//
// Extensions and trailers are held to their grammar and dropped: nothing in a
// trailer is ever taken for a field of the head.
type chunked struct {
	at      chunkState
	digits  uint8  // of the size being read
	left    uint64 // the size being read; then content of this chunk to come
	total   int64  // content read so far
	ext     int    // bytes of extensions so far
	trailer int    // bytes of trailers so far
}

type chunkState uint8

const (
	chunkSize      chunkState = iota // at the size or its end
	chunkSemicolon                   // white space after the size or an extension: ";" has to come
	chunkName                        // before the first byte of an extension's name
	chunkInName
	chunkEqual // white space after a name: "=" or ";" has to come
	chunkValue // before the first byte of a value
	chunkInValue
	chunkQuoted
	chunkEscaped // after a backslash
	chunkUnquote // after the closing quote
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer // at the beginning of a trailer line
	chunkInTrailerName
	chunkInTrailerValue
	chunkTrailerLF
	chunkLastLF
	chunkDone
)

// decode reads from in and appends the content it finds to dst, which may
// share its memory with in as long as it ends before it. It returns how many
// bytes of in it took: all of them, unless the body is done, trailers
// included, or refused. Content of more than most bytes is refused as soon as
// a size says so.
func (c *chunked) decode(dst, in []byte, most int64) (out []byte, n int, done bool, err *refusal) {
	for n < len(in) && c.at != chunkDone {
		if c.at == chunkData {
			k := int(min(c.left, uint64(len(in)-n)))
			dst = append(dst, in[n:n+k]...)
			n += k
			c.total += int64(k)
			if c.left -= uint64(k); c.left == 0 {
				c.at = chunkDataCR
			}
			continue
		}
		if err := c.step(in[n], most); err != nil {
			return dst, n, false, err
		}
		n++
	}
	return dst, n, c.at == chunkDone, nil
}

// step reads a byte that is not content.
func (c *chunked) step(b byte, most int64) *refusal {
	switch {
	case c.at == chunkSize:
		return c.size(b, most)
	case c.at < chunkSizeLF:
		return c.extension(b)
	case c.at >= chunkTrailer:
		return c.trailers(b)
	case c.at == chunkSizeLF:
		if b != '\n' {
			return errChunkLine
		}
		c.at = chunkData
		if c.left == 0 {
			c.at = chunkTrailer
		}
	case c.at == chunkDataCR:
		if b != '\r' {
			return errChunkEnd
		}
		c.at = chunkDataLF
	case c.at == chunkDataLF:
		if b != '\n' {
			return errChunkEnd
		}
		c.at, c.digits = chunkSize, 0
	}
	return nil
}

// size reads a byte of a size, or the one after it.
func (c *chunked) size(b byte, most int64) *refusal {
	if class[b]&isHex != 0 {
		if c.digits == chunkDigits {
			return errChunkSize
		}
		c.digits++
		c.left = c.left<<4 | uint64(unhex(b))
		if c.left > uint64(most-c.total) {
			return errBodyCap
		}
		return nil
	}
	if c.digits == 0 {
		return errChunkSize
	}
	return c.afterExtension(b, errChunkSize)
}

// afterExtension reads the byte after a size or a whole extension.
func (c *chunked) afterExtension(b byte, fault *refusal) *refusal {
	switch b {
	case '\r':
		c.at = chunkSizeLF
		return nil
	case ';':
		c.at = chunkName
	case ' ', '\t':
		c.at = chunkSemicolon
	case '\n':
		return errChunkLine
	default:
		return fault
	}
	return c.countExtension()
}

// countExtension counts one byte that is only there because of an extension.
func (c *chunked) countExtension() *refusal {
	if c.ext++; c.ext > chunkExtMax {
		return errChunkExt
	}
	return nil
}

// extension reads a byte of the extensions. White space around ";" and "=" is
// bad but has to be understood (RFC 9112 7.1.1); at the end of a line it is
// not even that.
func (c *chunked) extension(b byte) *refusal {
	space := b == ' ' || b == '\t'
	token := class[b]&isToken != 0
	switch c.at {
	case chunkSemicolon:
		if b == ';' {
			c.at = chunkName
		} else if !space {
			return errChunkExt
		}
	case chunkName:
		if token {
			c.at = chunkInName
		} else if !space {
			return errChunkExt
		}
	case chunkInName:
		switch {
		case token:
		case b == '=':
			c.at = chunkValue
		case space:
			c.at = chunkEqual
		default:
			return c.afterExtension(b, errChunkExt)
		}
	case chunkEqual:
		switch {
		case b == '=':
			c.at = chunkValue
		case b == ';':
			c.at = chunkName
		case !space:
			return errChunkExt
		}
	case chunkValue:
		switch {
		case b == '"':
			c.at = chunkQuoted
		case token:
			c.at = chunkInValue
		case !space:
			return errChunkExt
		}
	case chunkInValue:
		if !token {
			return c.afterExtension(b, errChunkExt)
		}
	case chunkQuoted:
		switch {
		case b == '"':
			c.at = chunkUnquote
		case b == '\\':
			c.at = chunkEscaped
		case class[b]&isValue == 0:
			return errChunkExt
		}
	case chunkEscaped:
		if class[b]&isValue == 0 {
			return errChunkExt
		}
		c.at = chunkQuoted
	case chunkUnquote:
		return c.afterExtension(b, errChunkExt)
	}
	return c.countExtension()
}

// trailers reads a byte of the trailer section.
func (c *chunked) trailers(b byte) *refusal {
	if c.trailer++; c.trailer > trailerMax {
		return errTrailerCap
	}
	switch c.at {
	case chunkTrailer:
		switch {
		case b == '\r':
			c.at = chunkLastLF
		case class[b]&isToken != 0:
			c.at = chunkInTrailerName
		case b == ' ' || b == '\t':
			return errFold
		case b == '\n':
			return errBareLF
		default:
			return errTrailerName
		}
	case chunkInTrailerName:
		switch {
		case b == ':':
			c.at = chunkInTrailerValue
		case class[b]&isToken == 0:
			return errTrailerName
		}
	case chunkInTrailerValue:
		switch {
		case b == '\r':
			c.at = chunkTrailerLF
		case b == '\n':
			return errBareLF
		case class[b]&isValue == 0:
			return errFieldValue
		}
	case chunkTrailerLF, chunkLastLF:
		if b != '\n' {
			return errBareCR
		}
		if c.at == chunkLastLF {
			c.at = chunkDone
		} else {
			c.at = chunkTrailer
		}
	}
	return nil
}
